#include "train/card_steps.h"

#include <algorithm>
#include <cstring>

#include "engine/base/parallel.h"

namespace tessera {
namespace {

template <class T>
Tensor piece_of(Tensor block, int64_t at, Shape shape) {
  Tensor part = Tensor::declare(shape, dtype_of<T>());
  part.place(block.mutable_data<uint8_t>() + at, block);
  return part;
}

template <class T>
std::span<const T> write(std::byte* to, std::span<const T> values) {
  constexpr int64_t kNumbersPerTask = 1 << 17;
  T* const first = reinterpret_cast<T*>(to);
  parallel_for(int64_t(values.size()), kNumbersPerTask, [&](int64_t begin, int64_t end) {
    std::copy(values.begin() + begin, values.begin() + end, first + begin);
  });
  return {first, values.size()};
}

}  // namespace

CardSteps::Layout CardSteps::layout(int64_t samples, int64_t sample, int64_t classes) {
  constexpr int64_t kAlignment = 256;  // of what a card allocates
  const auto after = [](int64_t at, int64_t bytes) {
    return at + (bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  Layout made{};
  made.labels = after(0, sizeof(StepNumbers));
  made.images = after(made.labels, samples * int64_t(sizeof(int32_t)));
  made.soft_targets = after(made.images, samples * sample * int64_t(sizeof(float)));
  made.end = after(made.soft_targets, samples * classes * int64_t(sizeof(float)));
  return made;
}

CardSteps::CardSteps(Replicas& replicas, const Options& options, Work work)
    : replicas_(replicas),
      options_(options),
      work_(std::move(work)),
      layout_(layout(options.samples, replicas.input_shape().count(), replicas.classes())),
      block_({layout_.end}, DType::u8),
      found_(Tensor::zeros({2 * int64_t(sizeof(StepFindings))}, DType::u8)),
      upload_(block_.mutable_data<uint8_t>(), size_t(layout_.end)),
      download_(found_.data<uint8_t>(), sizeof(StepFindings)) {
  Shape shape{options.samples};
  for (const int64_t axis : replicas.input_shape()) shape.push_back(axis);
  batch_ = {piece_of<float>(block_, layout_.images, shape),
            piece_of<int32_t>(block_, layout_.labels, {options.samples}),
            piece_of<float>(block_, layout_.soft_targets, {options.samples, replicas.classes()}),
            options.samples};
}

void CardSteps::start(const BatchView& batch, const StepNumbers& numbers,
                      const std::function<void(StepFindings* found)>& beside) {
  TESSERA_CHECK(batch.size == options_.samples && int64_t(batch.images.size()) == batch_.images.count() &&
                    int64_t(batch.labels.size()) == batch.size &&
                    (!batch.soft() || int64_t(batch.soft_targets.size()) == batch_.soft_targets.count()),
                "card steps: a batch of ", batch.size, " samples, ", batch.images.size(), " numbers, ",
                batch.labels.size(), " labels and ", batch.soft_targets.size(), " soft targets for ",
                batch_.images.shape(), " with ", replicas_.classes(), " classes");
  for (const int32_t label : batch.labels)  // where the loss does not look at them
    TESSERA_CHECK_AS(Exit::data, label >= 0 && label < replicas_.classes(), "card steps: the label ", label,
                     " is not in [0,", replicas_.classes(), "); does the model have the data set's classes?");
  std::byte* const to = upload_.next();
  std::memcpy(to, &numbers, sizeof numbers);
  batches_[size_t(started_ % 2)] = {write(to + layout_.images, batch.images),
                                    write(to + layout_.labels, batch.labels), batch.size,
                                    write(to + layout_.soft_targets, batch.soft_targets)};
  upload_.send(size_t(batch.soft() ? layout_.end : layout_.soft_targets));

  CardBatch on_card = batch_;
  if (!batch.soft()) on_card.soft_targets = {};
  auto* const numbers_there = reinterpret_cast<StepNumbers*>(block_.mutable_data<uint8_t>());
  auto* const found = reinterpret_cast<StepFindings*>(found_.mutable_data<uint8_t>());
  run(plans_[batch.soft()], [&] { work_(on_card, numbers_there, found); });
  if (beside) beside(found);
  download_.fetch();
  ++started_;
}

// The first step of a kind has its memory recorded, and the second gets it all at once, where it stays. One
// that does not is recorded again.
void CardSteps::run(Plan& plan, const std::function<void()>& work) {
  constexpr int kMostEagerSteps = 4;  // then a graph is tried all the same, and says why it can't be
  is_graph_ = false;
  if (!options_.graph || !why_no_graph_.empty()) return work();
  const int64_t before = replicas_.unplanned_blocks();
  if (!plan.is_planned && plan.eager_steps < kMostEagerSteps) {
    work();
    ++plan.eager_steps;
    plan.is_planned = replicas_.unplanned_blocks() == before;
    return;
  }
  if (!plan.graph || plan.slab != replicas_.slab()) {
    why_no_graph_ = plan.graph.record([&] {
      work();
      const int64_t unplanned = replicas_.unplanned_blocks() - before;
      TESSERA_CHECK_AS(Exit::device, unplanned == 0, unplanned,
                       " blocks of its memory are not planned, and others may get them in between");
    });
    if (!why_no_graph_.empty()) return work();
    plan.slab = replicas_.slab();
  }
  plan.graph.launch();
  is_graph_ = true;
}

StepFindings CardSteps::finish() {
  TESSERA_CHECK(finished_ < started_, "card steps: there is no step to wait for");
  ++finished_;
  StepFindings found;
  std::memcpy(&found, download_.wait(), sizeof found);
  return found;
}

}  // namespace tessera
