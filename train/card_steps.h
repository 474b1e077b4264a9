// Training steps on a card, which nobody waits for: a batch goes there while the card works on the one
// before, and what a step has found is read when the next has been queued. Once the memory of a step is
// planned, it is recorded as one CUDA graph, and launched as that from then on.
#pragma once

#include <array>
#include <functional>
#include <string>

#include "cuda/runtime.h"
#include "optim/step_numbers.h"
#include "train/replicas.h"

namespace tessera {

class CardSteps {
 public:
  // Asks the card for all that a step does to a batch. Everything that changes from step to step it takes
  // from the batch and from `numbers`; what is found goes to found[0], and found[1] is for a second pass.
  using Work = std::function<void(const CardBatch& batch, StepNumbers* numbers, StepFindings* found)>;

  struct Options {
    int64_t samples = 0;  // of every batch
    bool graph = true;    // false: every kernel is launched by itself
  };

  // For the model of `replicas`, which must outlive this.
  CardSteps(Replicas& replicas, const Options& options, Work work);

  // Queues a step, where at most one waits for finish(). `beside` asks for more that is to be found.
  void start(const BatchView& batch, const StepNumbers& numbers,
             const std::function<void(StepFindings* found)>& beside = {});
  // Waits for the oldest step.
  StepFindings finish();
  // Whether the step that was started last is one graph.
  bool is_graph() const { return is_graph_; }
  // Why no step will be, once that is known; else empty.
  const std::string& why_no_graph() const { return why_no_graph_; }
  // The batch of the step that was finished last, until the next start().
  const BatchView& finished_batch() const { return batches_[size_t(finished_ - 1) % 2]; }

 private:
  // Where a batch has its parts, in bytes.
  struct Layout {
    int64_t labels, images, soft_targets, end;
  };
  struct Plan {
    int eager_steps = 0;
    bool is_planned = false;  // the last of them had all its memory from the slab
    cuda::Graph graph;
    const void* slab = nullptr;  // that it was recorded with
  };

  static Layout layout(int64_t samples, int64_t sample, int64_t classes);
  void run(Plan& plan, const std::function<void()>& work);

  Replicas& replicas_;
  Options options_;
  Work work_;
  Layout layout_;
  Tensor block_, found_;  // on the card: a step's numbers and batch; two StepFindings
  CardBatch batch_;       // there
  cuda::Upload upload_;
  cuda::Download download_;
  std::array<BatchView, 2> batches_;  // on the host, where they are sent from
  std::array<Plan, 2> plans_;         // with hard and with soft targets
  int64_t started_ = 0, finished_ = 0;
  bool is_graph_ = false;
  std::string why_no_graph_;
};

}  // namespace tessera
