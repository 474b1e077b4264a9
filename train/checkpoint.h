// A run's state in one safetensors file: the model's weights under their names, the optimizer's and other
// buffers under "optimizer.", and the place in the run in the metadata. Written atomically, so that a kill at
// any moment leaves the former checkpoint or the new one.
#pragma once

#include <cstdint>
#include <string>

#include "models/weights.h"
#include "optim/optimizer.h"
#include "train/config.h"

namespace tessera {

// The metadata key of the run's settings, which only checkpoints have.
inline constexpr const char* kRunKey = "tessera.run";

// Where a run stands, between two steps.
struct RunState {
  int64_t step = 0;
  int64_t optimizer_steps = 0;
  double best_top1 = -1;
  // Sums since the epoch began, for its line of the log.
  double epoch_loss = 0;
  int64_t epoch_correct = 0;
  double epoch_gradient_norm = 0;
  uint64_t data_fingerprint = 0;
};

using Buffers = std::vector<Optimizer<float>::State>;

void save_checkpoint(const std::string& path, const RunConfig& config, const RunState& state,
                     const Model& model, const Buffers& buffers, const Metadata& metadata);

// The configuration that a checkpoint was made with.
RunConfig checkpoint_config(const SafetensorsFile& file);
// Fills model and buffers and gives the state. A file that is no checkpoint is an error (file).
RunState load_checkpoint(const SafetensorsFile& file, Model& model, const Buffers& buffers);

}  // namespace tessera
