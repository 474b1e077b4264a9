#include "train/replicas.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/runtime.h"
#include "engine/base/parallel.h"
#include "engine/ops/ops.h"
#include "optim/clip.h"

namespace tessera {
namespace {

// Images of a micro-batch: enough rows for full products, few enough for the cache. Experts share the rows
// and each reads and adds to weights of its own, so a model with experts takes twice as many.
int64_t images_in_flight(const Model& model) {
  if (Device::current().is_cuda()) return std::numeric_limits<int32_t>::max();
  constexpr int64_t kRows = 520;
  return std::max<int64_t>(1, (model.config().is_moe() ? 2 : 1) * kRows / model.rows());
}

int64_t largest_logit(const float* row, int64_t K) { return std::max_element(row, row + K) - row; }

// Tells apart the kinds of steps that an arena plans. `adds`: its gradients are added to those of an earlier
// piece on a card, whose sums take other memory then.
uint64_t arena_key(int64_t samples, bool training, bool soft_targets = false, bool adds = false) {
  return uint64_t(samples) * 8 + adds * 4 + soft_targets * 2 + training;
}

// Rows of a tensor, where they are.
template <class T>
Tensor rows_of(Tensor whole, int64_t begin, int64_t end) {
  Shape shape = whole.shape();
  const int64_t row = shape.count(1, shape.rank());
  shape[0] = end - begin;
  Tensor part = Tensor::declare(shape, whole.dtype());
  part.place(whole.mutable_data<T>() + begin * row, whole);
  return part;
}

}  // namespace

void add_notes(Notes& sums, const Notes& notes, double weight) {
  for (const auto& [name, values] : notes) {
    std::vector<double>& sum = sums[name];
    sum.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) sum[i] += weight * values[i];
  }
}

Replicas::Replicas(Model& model, const ReplicaOptions& options)
    : model_(model),
      counts_(model.parameters().gradient_counts()),
      micro_batch_(options.micro_batch > 0 ? options.micro_batch : images_in_flight(model)),
      parts_(options.parts),
      together_(model.config().together()) {
  const int threads = options.workers > 0 ? options.workers : thread_count();
  const int workers = Device::current().is_cuda() ? 1 : threads;
  for (int w = 0; w < workers; ++w) workers_.push_back(std::make_unique<Worker>());
  if (!Device::current().is_cuda()) return;
  cuda::use_tf32() = options.dtype != "f32";  // with bf16: for what has no bf16 form
  if (options.dtype == "bf16") model.parameters().keep_copies();
}

std::vector<Replicas::Piece> Replicas::pieces_of(int64_t batch, int64_t count) const {
  const int64_t units = (batch + together_ - 1) / together_;
  count = std::min(count, units);
  std::vector<Piece> pieces;
  for (int64_t i = 0; i < count; ++i)
    pieces.push_back({units * i / count * together_, std::min(batch, units * (i + 1) / count * together_)});
  return pieces;
}

// Into pieces of at most micro_batch samples that differ by at most one, as many for each worker. Samples
// that the model wants together count as one.
std::vector<Replicas::Piece> Replicas::cut(int64_t batch) const {
  const int64_t W = int64_t(workers_.size());
  const int64_t most = std::max<int64_t>(1, micro_batch_ / together_) * together_;
  const int64_t count = (batch + most - 1) / most;
  return pieces_of(batch, (count + W - 1) / W * W);
}

// A model with batch statistics gets each part whole; then one worker takes it, with all threads in its ops.
// A card takes parts whole too.
std::vector<Replicas::Piece> Replicas::cut_training(int64_t batch) const {
  const bool whole = model_.whole_batch() || (Device::current().is_cuda() && micro_batch_ >= batch);
  return whole ? pieces_of(batch, parts_) : cut(batch);
}

Tensor Replicas::images_of(const BatchView& batch, const Piece& piece) const {
  const Shape sample = model_.input_shape();
  const int64_t size = sample.count();
  TESSERA_CHECK(int64_t(batch.images.size()) == batch.size * size, "replicas: ", batch.images.size(),
                " numbers for ", batch.size, " samples of ", size);
  Shape shape{piece.end - piece.begin};
  for (const int64_t axis : sample) shape.push_back(axis);
  Tensor images(shape, DType::f32);
  images.assign(batch.images.subspan(size_t(piece.begin * size), size_t(images.count())));
  return images;
}

Tensor Replicas::targets_of(const BatchView& batch, const Piece& piece) const {
  const int64_t m = piece.end - piece.begin, K = model_.config().classes;
  if (!batch.soft()) {
    const std::span<const int32_t> own = batch.labels.subspan(size_t(piece.begin), size_t(m));
    if (Device::current().is_cuda())  // where the loss does not look at them
      for (const int32_t label : own)
        TESSERA_CHECK_AS(Exit::data, label >= 0 && label < K, "replicas: the label ", label, " is not in [0,",
                         K, "); does the model have the data set's classes?");
    Tensor labels({m}, DType::i32);
    labels.assign(own);
    return labels;
  }
  TESSERA_CHECK(int64_t(batch.soft_targets.size()) == batch.size * K, "replicas: ", batch.soft_targets.size(),
                " soft targets for ", batch.size, " images and ", K, " classes");
  Tensor soft({m, K}, DType::f32);
  soft.assign(batch.soft_targets.subspan(size_t(piece.begin * K), size_t(m * K)));
  return soft;
}

Tensor Replicas::images_of(const CardBatch& batch, const Piece& piece) const {
  return rows_of<float>(batch.images, piece.begin, piece.end);
}

Tensor Replicas::targets_of(const CardBatch& batch, const Piece& piece) const {
  return batch.soft() ? rows_of<float>(batch.soft_targets, piece.begin, piece.end)
                      : rows_of<int32_t>(batch.labels, piece.begin, piece.end);
}

// f(worker, piece) for every piece; worker w takes the pieces w, w + W, ..., whatever the threads' speed.
template <class F>
void Replicas::on_pieces(const std::vector<Piece>& pieces, size_t workers, F f) {
  const size_t active = std::min(workers, pieces.size());
  on_workers(int(active), [&](int w) {
    for (size_t i = size_t(w); i < pieces.size(); i += active) f(*workers_[size_t(w)], pieces[i]);
  });
}

void Replicas::clear_gradients(Worker& worker) {
  if (!worker.gradients) worker.gradients = model_.parameters().make_gradients();
  worker.gradients->clear();
}

// Forward and backward of one piece; then f(logits, loss, report, the piece's share of the batch), which a
// card has not worked out yet.
template <class Batch, class F>
void Replicas::learn(Worker& worker, const Batch& batch, const Piece& piece, const Pass& pass,
                     double label_smoothing, F f) {
  const int64_t m = piece.end - piece.begin;
  const bool adds = piece.begin > 0 && Device::current().is_cuda();
  const Arena::Step step(worker.arena, arena_key(m, true, batch.soft(), adds));
  Tape tape;
  const Tape::Scope recording(&tape);
  const ParameterGradients::Scope gradients(*worker.gradients);
  const double share = double(m) / double(batch.size);
  PassReport report;
  Pass part = pass;
  part.training = true;
  part.first_sample = piece.begin;
  part.batch = batch.size;
  part.targets = targets_of(batch, piece);
  part.report = &report;
  const Tensor logits = model_.forward(images_of(batch, piece), part);
  const Tensor own_loss = softmax_cross_entropy(logits, part.targets, label_smoothing);
  Tensor loss = own_loss;
  for (const Tensor& auxiliary : report.losses) loss = add(loss, auxiliary.reshape(loss.shape()));
  tape.backward(loss, share);
  f(logits, own_loss, report, share);
}

StepResult Replicas::compute_gradients(const BatchView& batch, const Pass& pass, double label_smoothing) {
  TESSERA_CHECK(int64_t(batch.labels.size()) == batch.size, "replicas: ", batch.labels.size(), " labels for ",
                batch.size, " images");
  model_.parameters().refresh_copies();
  for (auto& worker : workers_) {
    clear_gradients(*worker);
    worker->result = {};
  }
  const size_t workers = model_.whole_batch() ? 1 : workers_.size();
  on_pieces(cut_training(batch.size), workers, [&](Worker& worker, const Piece& piece) {
    learn(worker, batch, piece, pass, label_smoothing,
          [&](const Tensor& logits, const Tensor& loss, const PassReport& report, double share) {
            StepResult& result = worker.result;
            result.loss += loss.item() * share;
            for (const Tensor& auxiliary : report.losses) result.auxiliary += auxiliary.item() * share;
            add_notes(result.notes, report.notes, share);
            const std::vector<float> scores = logits.values<float>();
            const int64_t K = logits.size(1);
            for (int64_t b = 0; b < logits.size(0); ++b)
              result.correct +=
                  largest_logit(scores.data() + b * K, K) == batch.labels[size_t(piece.begin + b)];
          });
  });
  StepResult result;
  std::vector<float*> buffers;
  for (auto& worker : workers_) {
    worker->gradients->fill_unwritten(counts_);
    buffers.push_back(worker->gradients->flat().mutable_data<float>());
    result.loss += worker->result.loss;
    result.auxiliary += worker->result.auxiliary;
    result.correct += worker->result.correct;
    add_notes(result.notes, worker->result.notes, 1);
  }
  result.gradient_norm = reduce_gradients<float>(buffers, model_.parameters().learned());
  return result;
}

void Replicas::queue_gradients(const CardBatch& batch, const Pass& pass, double label_smoothing,
                               StepFindings* found) {
  Worker& worker = *workers_[0];
  clear_gradients(worker);
  for (const Piece& piece : cut_training(batch.size))
    learn(worker, batch, piece, pass, label_smoothing,
          [&](const Tensor& logits, const Tensor& loss, const PassReport& report, double share) {
            bool adds = piece.begin > 0;
            put_loss(loss, share, adds, &found->loss);
            put_correct(logits, rows_of<int32_t>(batch.labels, piece.begin, piece.end), adds,
                        &found->correct);
            for (const Tensor& auxiliary : report.losses) {
              put_loss(auxiliary, share, adds, &found->auxiliary);
              adds = true;
            }
          });
  worker.gradients->fill_unwritten(counts_);
  put_norm(gradients().data<float>(), model_.parameters().learned(), norm_sums_, &found->gradient_norm);
}

void Replicas::forward(const BatchView& batch, float* logits, Notes* notes) {
  const int64_t K = model_.config().classes;
  model_.parameters().refresh_copies();
  for (auto& worker : workers_) worker->result.notes.clear();
  on_pieces(cut(batch.size), workers_.size(), [&](Worker& worker, const Piece& piece) {
    const Arena::Step step(worker.arena, arena_key(piece.end - piece.begin, false));
    const Tape::Scope off(nullptr);
    PassReport report;
    Pass pass{.first_sample = piece.begin, .batch = batch.size};
    if (notes) {
      pass.report = &report;
      if (!batch.labels.empty()) pass.targets = targets_of(batch, piece);
    }
    const Tensor out = model_.forward(images_of(batch, piece), pass);
    const std::vector<float> values = out.values<float>();
    std::copy(values.begin(), values.end(), logits + piece.begin * K);
    add_notes(worker.result.notes, report.notes, double(piece.end - piece.begin) / double(batch.size));
  });
  if (notes)
    for (const auto& worker : workers_) add_notes(*notes, worker->result.notes, 1);
}

std::string Replicas::first_non_finite(const BatchView& batch, Pass pass) {
  std::string found;
  pass.training = true;
  pass.batch = batch.size;
  pass.watch = [&](const std::string& module, const Tensor& output) {
    const std::vector<float> values = output.values<float>();
    if (found.empty() && !std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
      found = module;
  };
  pass.update_statistics = false;
  model_.parameters().refresh_copies();
  for (const Piece& piece : cut_training(batch.size)) {
    pass.first_sample = piece.begin;
    pass.targets = targets_of(batch, piece);
    model_.forward(images_of(batch, piece), pass);
    if (!found.empty()) break;
  }
  return found;
}

}  // namespace tessera
