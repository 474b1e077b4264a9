#include "data/loader.h"

#include <algorithm>
#include <chrono>

#include "engine/base/check.h"
#include "engine/base/rng.h"

namespace tessera {
namespace {

int64_t count_samples(const Dataset& data, const LoaderOptions& options) {
  TESSERA_CHECK_AS(Exit::usage, options.limit >= 0, "loader: limit ", options.limit,
                   ", expected 0 (all) or more");
  return options.limit == 0 ? data.count() : std::min(options.limit, data.count());
}

int64_t count_steps(const LoaderOptions& options, int64_t samples) {
  const int64_t batch = options.batch_size;
  TESSERA_CHECK_AS(Exit::usage, batch > 0, "loader: batch size ", batch, ", expected at least 1");
  const int64_t steps = options.training ? samples / batch : (samples + batch - 1) / batch;
  TESSERA_CHECK_AS(Exit::usage, steps > 0, "loader: no whole batch of ", batch, " in ", samples,
                   " samples; use a smaller batch");
  return steps;
}

// One slot is the caller's, one is ready for it, and every worker fills one.
size_t count_slots(int workers) {
  TESSERA_CHECK_AS(Exit::usage, workers >= 0, "loader: ", workers, " workers, expected 0 or more");
  return workers == 0 ? 1 : size_t(workers) + 2;
}

}  // namespace

Loader::Loader(const Dataset& data, LoaderOptions options)
    : data_(data),
      options_(std::move(options)),
      preparation_(data.samples->preparation(options_.prepare)),
      samples_(count_samples(data_, options_)),
      steps_(count_steps(options_, samples_)),
      slots_(count_slots(options_.workers)) {
  TESSERA_CHECK_AS(Exit::usage, options_.repeats > 0, "loader: ", options_.repeats,
                   " repeats, expected at least 1");
  TESSERA_CHECK_AS(Exit::usage, !options_.mix.in_use() || preparation_->shape().rank() == 3,
                   "loader: Mixup and CutMix are for images, not for samples ", preparation_->shape());
  TESSERA_CHECK_AS(Exit::data,
                   data.samples->count() == data.count() &&
                       (data.coarse_labels.empty() || data.coarse_labels.size() == data.labels.size()),
                   data.name, ": ", data.labels.size(), " labels and ", data.coarse_labels.size(),
                   " super-classes for ", data.samples->count(), " samples");
}

Loader::~Loader() { stop(); }

void Loader::seek(int64_t epoch, int64_t step_in_epoch) {
  TESSERA_CHECK_AS(
      Exit::usage, epoch >= 0 && epoch <= UINT32_MAX && step_in_epoch >= 0 && step_in_epoch <= steps_,
      "loader: seek to epoch ", epoch, ", step ", step_in_epoch, ", but an epoch has ", steps_, " steps");
  stop();
  for (Slot& slot : slots_) slot.ready = false;
  assigned_ = epoch * steps_ + step_in_epoch;
  current_ = assigned_ - 1;
}

const Batch& Loader::next() {
  const auto start = std::chrono::steady_clock::now();
  if (options_.workers == 0) {
    prepare(++current_);
  } else {
    std::unique_lock lock(mutex_);
    ++current_;
    slot_free_.notify_one();
    while (int(threads_.size()) < options_.workers) threads_.emplace_back([this] { work(); });
    batch_ready_.wait(lock, [this] { return slot(current_).ready; });
    slot(current_).ready = false;
  }
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  Slot& taken = slot(current_);
  if (taken.error) std::rethrow_exception(taken.error);
  return taken.batch;
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    slot_free_.wait(lock, [this] { return stopping_ || assigned_ < current_ + int64_t(slots_.size()); });
    if (stopping_) return;
    const int64_t number = assigned_++;
    lock.unlock();
    prepare(number);
    lock.lock();
    slot(number).ready = true;
    batch_ready_.notify_one();
  }
}

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  slot_free_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  stopping_ = false;
}

void Loader::prepare(int64_t number) {
  Slot& to = slot(number);
  to.error = nullptr;
  try {
    fill(number, to.batch);
  } catch (...) {
    to.error = std::current_exception();
  }
}

void Loader::fill(int64_t number, Batch& batch) const {
  batch.epoch = number / steps_;
  batch.step_in_epoch = number % steps_;
  const auto epoch = uint32_t(batch.epoch);
  const int64_t first = batch.step_in_epoch * options_.batch_size;
  const int64_t size = std::min(options_.batch_size, samples_ - first);
  const auto length = size_t(preparation_->shape().count());
  const int64_t repeats = options_.training ? options_.repeats : 1;
  const Permutation order(uint64_t(samples_), Draw{options_.seed, Stream::shuffle, epoch, 0});

  batch.inputs.resize(size_t(size) * length);
  batch.labels.resize(size_t(size));
  batch.indices.resize(size_t(size));
  batch.coarse_labels.resize(data_.coarse_labels.empty() ? 0 : size_t(size));
  for (int64_t i = 0; i < size; ++i) {
    const int64_t turn = (first + i) / repeats;
    const int64_t index = options_.training ? int64_t(order.at(uint64_t(turn))) : turn;
    const int32_t label = data_.labels[index];
    TESSERA_CHECK_AS(Exit::data, label >= 0 && label < data_.classes(), data_.name, ": label ", label,
                     " of sample ", index, ", but there are ", data_.classes(), " classes");
    batch.indices[i] = index;
    batch.labels[i] = label;
    if (!batch.coarse_labels.empty()) batch.coarse_labels[i] = data_.coarse_labels[index];
    const Occasion at{options_.training || options_.vote, options_.seed, epoch,
                      uint32_t((first + i) % repeats)};
    preparation_->prepare(index, at, std::span(batch.inputs).subspan(size_t(i) * length, length));
  }
  mix(batch);
}

void Loader::mix(Batch& batch) const {
  batch.soft_targets.clear();
  if (!options_.training || !options_.mix.in_use()) return;
  const Shape shape = preparation_->shape();
  const Occasion at{true, options_.seed, uint32_t(batch.epoch)};
  const Mix mix = draw_mix(options_.mix, Dice(at, Site::mix, batch.step_in_epoch), shape[1], shape[2]);
  if (mix.lambda == 1) return;
  mix_inputs(batch.inputs, shape, mix);
  batch.soft_targets = mixed_targets(batch.labels, data_.classes(), mix.lambda);
}

}  // namespace tessera
