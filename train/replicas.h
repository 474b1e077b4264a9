// The step on the CPU: micro-batches on replica threads. Each worker takes a few images at a time through the
// whole forward and backward pass with its own arena and gradient buffer, so that activations stay in cache
// and nobody waits between layers; the buffers are then added in a fixed order. Where a card is the current
// device, it is one worker that takes the whole batch.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor/arena.h"
#include "engine/tensor/tape.h"
#include "models/model.h"
#include "optim/step_numbers.h"

namespace tessera {

struct ReplicaOptions {
  int workers = 0;          // threads; 0: all
  int64_t micro_batch = 0;  // images a worker takes at a time; 0: some 520 token rows, 1040 with experts, and
                            // on a card all
  int64_t parts = 1;        // of a training batch that are taken whole: where the model wants that
                            // (Model::whole_batch), or on a card without micro_batch
  std::string dtype = "f32";  // of a card's products: f32, tf32 or bf16; the CPU's are f32
};

// A whole batch on the host.
struct BatchView {
  std::span<const float> images;             // (B,C,H,W), or samples of the model's input_shape()
  std::span<const int32_t> labels;           // (B), or empty
  int64_t size = 0;                          // B
  std::span<const float> soft_targets = {};  // (B,K): what is learned in place of the labels; or empty

  bool soft() const { return !soft_targets.empty(); }
};

// The same on a card.
struct CardBatch {
  Tensor images;        // (B, ...)
  Tensor labels;        // i32 (B)
  Tensor soft_targets;  // (B,K), or empty
  int64_t size = 0;     // B

  bool soft() const { return bool(soft_targets); }
};

// What the model reported (PassReport): means over the samples.
using Notes = std::map<std::string, std::vector<double>>;
void add_notes(Notes& sums, const Notes& notes, double weight);

struct StepResult {
  double loss = 0;       // mean over the batch, without the auxiliary losses
  double auxiliary = 0;  // their sum
  int64_t correct = 0;   // samples whose largest logit is the label's
  Notes notes = {};
  double gradient_norm = 0;

  bool finite() const { return std::isfinite(loss + auxiliary) && std::isfinite(gradient_norm); }
};

class Replicas {
 public:
  Replicas(Model& model, const ReplicaOptions& options);

  // Forward and backward of the whole batch; afterwards gradients() is the gradient of the mean loss. `pass`
  // gives seed and step.
  StepResult compute_gradients(const BatchView& batch, const Pass& pass, double label_smoothing);
  const Tensor& gradients() { return workers_[0]->gradients->flat(); }

  // The same on a card, without waiting for it, from weights whose copies are what they are: what is found is
  // left there, without `stopped`.
  void queue_gradients(const CardBatch& batch, const Pass& pass, double label_smoothing, StepFindings* found);
  // Where a card's steps have their memory, as Arena::slab(), and how often elsewhere.
  const void* slab() const { return workers_[0]->arena.slab(); }
  int64_t unplanned_blocks() const { return workers_[0]->arena.unplanned_blocks(); }

  // Logits (B,K) of a batch in eval mode; and what the model reports, which may need the labels.
  void forward(const BatchView& batch, float* logits, Notes* notes = nullptr);

  // Runs the batch once more, one micro-batch after the other, and gives the name of the first module whose
  // output is not finite; empty if there is none.
  std::string first_non_finite(const BatchView& batch, Pass pass);

  Shape input_shape() const { return model_.input_shape(); }  // of one sample
  int64_t classes() const { return model_.config().classes; }
  int64_t micro_batch() const { return micro_batch_; }

 private:
  struct Worker {
    Arena arena;
    std::unique_ptr<ParameterGradients> gradients;
    StepResult result;  // its part of it
  };
  struct Piece {
    int64_t begin, end;  // samples
  };

  // Into `count` pieces, or as many as there are samples that may be apart.
  std::vector<Piece> pieces_of(int64_t batch, int64_t count) const;
  std::vector<Piece> cut(int64_t batch) const;
  std::vector<Piece> cut_training(int64_t batch) const;
  Tensor targets_of(const BatchView& batch, const Piece& piece) const;
  Tensor images_of(const BatchView& batch, const Piece& piece) const;
  Tensor targets_of(const CardBatch& batch, const Piece& piece) const;
  Tensor images_of(const CardBatch& batch, const Piece& piece) const;
  void clear_gradients(Worker& worker);
  template <class Batch, class F>
  void learn(Worker& worker, const Batch& batch, const Piece& piece, const Pass& pass, double label_smoothing,
             F f);
  template <class F>
  void on_pieces(const std::vector<Piece>& pieces, size_t workers, F f);

  Model& model_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<int64_t> counts_;  // elements of each parameter
  int64_t micro_batch_, parts_, together_;
  Tensor norm_sums_;  // put_norm's
};

}  // namespace tessera
