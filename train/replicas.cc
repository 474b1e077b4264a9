#include "train/replicas.h"

#include <algorithm>
#include <cmath>

#include "engine/base/parallel.h"
#include "engine/ops/ops.h"
#include "optim/clip.h"

namespace tessera {
namespace {

// Images of a micro-batch: enough rows for full products, few enough for the cache. Experts share the rows
// and each reads and adds to weights of its own, so a model with experts takes twice as many.
int64_t images_in_flight(const ModelConfig& config) {
  constexpr int64_t kRows = 520;
  return std::max<int64_t>(1, (config.is_moe() ? 2 : 1) * kRows / config.tokens());
}

int64_t largest_logit(const float* row, int64_t K) { return std::max_element(row, row + K) - row; }

// Tells apart the kinds of steps that an arena plans.
uint64_t arena_key(int64_t samples, bool training) { return uint64_t(samples) * 2 + training; }

}  // namespace

Replicas::Replicas(Model& model, const ReplicaOptions& options)
    : model_(model),
      counts_(model.parameters().counts()),
      micro_batch_(options.micro_batch > 0 ? options.micro_batch : images_in_flight(model.config())) {
  const int workers = options.workers > 0 ? options.workers : thread_count();
  for (int w = 0; w < workers; ++w) workers_.push_back(std::make_unique<Worker>());
}

// Into pieces of at most micro_batch samples that differ by at most one, as many for each worker.
std::vector<Replicas::Piece> Replicas::cut(int64_t batch) const {
  const int64_t W = int64_t(workers_.size());
  int64_t count = (batch + micro_batch_ - 1) / micro_batch_;
  count = std::min((count + W - 1) / W * W, batch);
  std::vector<Piece> pieces;
  for (int64_t i = 0; i < count; ++i) pieces.push_back({batch * i / count, batch * (i + 1) / count});
  return pieces;
}

Tensor Replicas::images_of(const BatchView& batch, const Piece& piece) const {
  const ModelConfig& c = model_.config();
  const int64_t size = c.channels * c.image_size * c.image_size;
  TESSERA_CHECK(int64_t(batch.images.size()) == batch.size * size, "replicas: ", batch.images.size(),
                " pixels for ", batch.size, " images of ", size);
  Tensor images({piece.end - piece.begin, c.channels, c.image_size, c.image_size}, DType::f32);
  std::copy_n(batch.images.data() + piece.begin * size, images.count(), images.mutable_data<float>());
  return images;
}

// f(worker, piece) for every piece; worker w takes the pieces w, w + W, ..., whatever the threads' speed.
template <class F>
void Replicas::on_pieces(const std::vector<Piece>& pieces, F f) {
  const size_t active = std::min(workers_.size(), pieces.size());
  on_workers(int(active), [&](int w) {
    for (size_t i = size_t(w); i < pieces.size(); i += active) f(*workers_[size_t(w)], pieces[i]);
  });
}

StepResult Replicas::compute_gradients(const BatchView& batch, const Pass& pass, double label_smoothing) {
  TESSERA_CHECK(int64_t(batch.labels.size()) == batch.size, "replicas: ", batch.labels.size(), " labels for ",
                batch.size, " images");
  for (auto& worker : workers_) {
    if (!worker->gradients) worker->gradients = model_.parameters().make_gradients();
    worker->gradients->clear();
    worker->loss = 0;
    worker->correct = 0;
  }
  on_pieces(cut(batch.size), [&](Worker& worker, const Piece& piece) {
    const int64_t m = piece.end - piece.begin;
    const Arena::Step step(worker.arena, arena_key(m, true));
    const Tape::Scope recording(&worker.tape);
    const ParameterGradients::Scope gradients(*worker.gradients);
    Pass part = pass;
    part.training = true;
    part.first_sample = piece.begin;
    part.batch = batch.size;
    Tensor labels({m}, DType::i32);
    std::copy_n(batch.labels.data() + piece.begin, m, labels.mutable_data<int32_t>());
    Tensor loss;
    {
      const Tensor logits = model_.forward(images_of(batch, piece), part);
      const int64_t K = logits.size(1);
      for (int64_t b = 0; b < m; ++b)
        worker.correct +=
            largest_logit(logits.data<float>() + b * K, K) == batch.labels[size_t(piece.begin + b)];
      loss = softmax_cross_entropy(logits, labels, label_smoothing);
    }
    const double share = double(m) / double(batch.size);
    worker.loss += loss.item() * share;
    worker.tape.backward(loss, share);
  });
  StepResult result;
  std::vector<float*> buffers;
  for (auto& worker : workers_) {
    worker->gradients->fill_unwritten(counts_);
    buffers.push_back(worker->gradients->flat().mutable_data<float>());
    result.loss += worker->loss;
    result.correct += worker->correct;
  }
  result.gradient_norm = reduce_gradients<float>(buffers, model_.parameters().count());
  return result;
}

void Replicas::forward(const BatchView& batch, float* logits) {
  const int64_t K = model_.config().classes;
  on_pieces(cut(batch.size), [&](Worker& worker, const Piece& piece) {
    const Arena::Step step(worker.arena, arena_key(piece.end - piece.begin, false));
    const Tape::Scope off(nullptr);
    const Pass pass{.first_sample = piece.begin, .batch = batch.size};
    const Tensor out = model_.forward(images_of(batch, piece), pass);
    std::copy_n(out.data<float>(), out.count(), logits + piece.begin * K);
  });
}

std::string Replicas::first_non_finite(const BatchView& batch, Pass pass) {
  std::string found;
  pass.training = true;
  pass.batch = batch.size;
  pass.watch = [&](const std::string& module, const Tensor& output) {
    const float* values = output.data<float>();
    if (found.empty() &&
        !std::all_of(values, values + output.count(), [](float v) { return std::isfinite(v); }))
      found = module;
  };
  for (const Piece& piece : cut(batch.size)) {
    pass.first_sample = piece.begin;
    model_.forward(images_of(batch, piece), pass);
    if (!found.empty()) break;
  }
  return found;
}

}  // namespace tessera
