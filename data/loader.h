// Batches of a data set, in an order and with augmentations that depend on the seed alone: never on the
// number of worker threads, nor on whether the run was resumed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/augment/mix.h"
#include "data/dataset.h"

namespace tessera {

struct LoaderOptions {
  bool training = true;      // shuffled, augmented, whole batches; else in order, plain, the last one short
  bool vote = false;         // not in training: augmented all the same
  int64_t batch_size = 128;  // B
  uint64_t seed = 0;
  PrepareOptions prepare = {};
  MixOptions mix = {};  // of images, in training
  // In training: how often a sample comes in an epoch, in turns that follow each other and are augmented
  // anew. The epoch keeps its length, so that it sees only the part 1 / repeats of the samples: DeiT's
  // repeated augmentation (its RASampler) on one process.
  int64_t repeats = 1;
  int64_t limit = 0;  // only the first `limit` samples of the set; 0 means all
  int workers = 0;    // threads that prepare batches ahead; 0 prepares each in next()
};

struct Batch {
  std::vector<float> inputs;           // (B, ...), as the preparation shapes a sample
  std::vector<int32_t> labels;         // (B)
  std::vector<int32_t> coarse_labels;  // (B), empty where the set has none
  std::vector<float> soft_targets;     // (B, K) where samples are mixed, else empty
  std::vector<int64_t> indices;        // (B), each sample's place in the set
  int64_t epoch = 0, step_in_epoch = 0;

  int64_t size() const { return int64_t(labels.size()); }
};

class Loader {
 public:
  // `data` must outlive the loader. Error(Exit::usage) for options that give no batch.
  Loader(const Dataset& data, LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  int64_t samples() const { return samples_; }
  int64_t steps_per_epoch() const { return steps_; }

  // The next batch; epoch follows epoch without end. It is valid until the following call of next() or
  // seek(). A failure to prepare a batch is thrown where that batch would come, whatever the number of
  // workers; the call after it gives the batch after it.
  const Batch& next();

  // The next batch will be this one, as if all before it had been taken. (e, steps_per_epoch()) is (e + 1,
  // 0).
  void seek(int64_t epoch, int64_t step_in_epoch);

  // How long next() has kept its caller waiting, in all.
  double data_wait_seconds() const { return wait_seconds_; }

 private:
  // Batches are numbered on through the epochs; batch n is made in slots_[n % slots].
  struct Slot {
    Batch batch;
    std::exception_ptr error;
    bool ready = false;
  };

  Slot& slot(int64_t number) { return slots_[size_t(number) % slots_.size()]; }
  void fill(int64_t number, Batch& batch) const;
  void mix(Batch& batch) const;
  void prepare(int64_t number);
  void work();
  void stop();

  const Dataset& data_;
  const LoaderOptions options_;
  const std::unique_ptr<const Preparation> preparation_;
  const int64_t samples_, steps_;

  std::vector<Slot> slots_;
  std::vector<std::thread> threads_;  // started by the first next() after construction or seek()
  std::mutex mutex_;                  // over what follows, and Slot::ready
  std::condition_variable batch_ready_, slot_free_;
  int64_t current_ = -1;  // the batch that the caller holds: slots are in use from this one on
  int64_t assigned_ = 0;  // the first batch that no worker has begun
  bool stopping_ = false;

  double wait_seconds_ = 0;
};

}  // namespace tessera
