// What every layer is built from: named parameters in one flat store, and the pass that says how to run.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/rng.h"
#include "engine/tensor/tape.h"
#include "engine/tensor/tensor.h"

namespace tessera {

// How a parameter starts.
struct Init {
  enum class Kind { zeros, ones, constant, normal, trunc_normal } kind = Kind::zeros;
  double std = 0;     // of a constant, its value
  int64_t alike = 1;  // this many equal copies along the first axis (experts that start from one draw)

  static Init zeros() { return {}; }
  static Init ones() { return {Kind::ones}; }
  static Init constant(double value) { return {Kind::constant, value}; }
  static Init normal(double std) { return {Kind::normal, std}; }
  // Normal, cut off at two standard deviations by drawing again.
  static Init trunc_normal(double std) { return {Kind::trunc_normal, std}; }
  // Glorot and Bengio, 2010.
  static Init xavier_normal(int64_t inputs, int64_t outputs);
};

using NamedTensors = std::map<std::string, Tensor>;

// Parameters and their memory: one flat buffer, the decayed ones first, so that the optimizer, the norm and
// the checkpoint are one loop each. Buffers, which a layer updates itself (running statistics), come last.
class ParameterStore {
 public:
  struct Parameter {
    std::string name;
    Tensor value = {};
    Init init = {};
    bool decay = true;
    int64_t experts = 1;  // > 1: stacked along the first axis and averaged by EWA
    bool learned = true;  // false: a buffer, saved like the others, without a gradient
    int64_t offset = 0;
  };

  explicit ParameterStore(DType dtype) : dtype_(dtype) {}
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  // Declares a parameter, which gets its memory from allocate(); its value and offset are not given here.
  Tensor add(const Shape& shape, Parameter parameter);
  // Lays all parameters out on the current device and draws their first values from `seed`, each by its name;
  // without one they are 0.
  void allocate(std::optional<uint64_t> seed);

  const std::vector<Parameter>& parameters() const { return parameters_; }  // in order of declaration
  const Parameter* find(std::string_view name) const;
  DType dtype() const { return dtype_; }
  // Lengths in the flat buffer, with the gaps that align parameters: of all, of what is learned, of what is
  // decayed.
  int64_t count() const { return flat_.count(); }
  int64_t learned() const { return learned_; }
  int64_t decayed() const { return decayed_; }
  int64_t parameter_count() const;  // numbers that are learned
  Tensor& flat() { return flat_; }
  const Tensor& flat() const { return flat_; }

  // Brings all parameters to a device; every handle to them follows.
  void move_to(const Device& device);

  // From now on parameters have bf16 copies, for products to read, which lie as the values do. Before they
  // are read refresh_copies() makes them what the values are, if anybody asked to write such since, and
  // without copies does nothing. Who writes both says so by copies_written().
  void keep_copies();
  void refresh_copies();
  bf16* copies() { return copies_ ? copies_.mutable_data<bf16>() : nullptr; }
  void copies_written() { copied_ = writes(); }

  // An empty gradient buffer of this layout, one for each replica.
  std::unique_ptr<ParameterGradients> make_gradients() const;
  std::vector<int64_t> gradient_counts() const;  // elements of each parameter's gradient

  uint32_t next_site() { return sites_++; }

 private:
  uint64_t writes() const;  // how often anybody has asked to write values

  DType dtype_;
  std::vector<Parameter> parameters_;
  Tensor flat_, copies_;            // bf16, or none
  std::optional<uint64_t> copied_;  // writes() when the copies were last what the values are
  int64_t learned_ = 0, decayed_ = 0;
  uint32_t sites_ = 0;
};

// A place in the tree of names: Scope(store) / "blocks" / "0" / "attn".
class Scope {
 public:
  explicit Scope(ParameterStore& store, std::string prefix = "")
      : store_(&store), prefix_(std::move(prefix)) {}

  Scope operator/(std::string_view name) const {
    return Scope(*store_, prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name));
  }
  // timm's rule: vectors and biases are not decayed; `decay` is false too for tokens and position embeddings.
  Tensor weight(const Shape& shape, const Init& init, bool decay = true, int64_t experts = 1) const {
    return store_->add(shape, {.name = prefix_, .init = init, .decay = decay, .experts = experts});
  }
  Tensor bias(const Shape& shape, int64_t experts = 1) const {
    return weight(shape, Init::zeros(), false, experts);
  }
  // Numbers that the layer updates itself, such as running statistics.
  Tensor buffer(const Shape& shape, const Init& init) const {
    return store_->add(shape, {.name = prefix_, .init = init, .decay = false, .learned = false});
  }
  // A number of its own for each place that draws random numbers.
  uint32_t site() const { return store_->next_site(); }
  const std::string& name() const { return prefix_; }

 private:
  ParameterStore* store_;
  std::string prefix_;
};

// What a forward pass has to say besides its output.
struct PassReport {
  // Auxiliary losses, weighted, each of one element and a mean over this micro-batch; training adds them to
  // its own.
  std::vector<Tensor> losses;
  // Numbers for the log, each a mean over this micro-batch: the share of rows of each expert, say.
  std::map<std::string, std::vector<double>> notes;
};

// How one forward pass runs: in training or not, which draws it makes, and which samples of the batch it
// holds.
struct Pass {
  bool training = false;
  uint64_t seed = 0;
  uint32_t step = 0;
  int64_t first_sample = 0;  // the place of this micro-batch in the whole batch
  int64_t batch = 0;         // samples of the whole batch; 0: those given are all
  int64_t tokens = 0;        // of a sample, where a layer is given only the first of them; 0: it has all
  // Of these samples: i32 (B) labels, or soft (B,K). There in training, and where results are compared with
  // them.
  Tensor targets = {};
  bool update_statistics = true;  // in training: false leaves running statistics as they are
  PassReport* report = nullptr;
  // Shown every module's output, in order; used to find the first one that is not finite.
  std::function<void(const std::string& module, const Tensor& output)> watch = {};
  const uint32_t* step_on_card = nullptr;  // as in Draw

  Draw draw(Stream stream, uint32_t site) const { return {seed, stream, step, site, step_on_card}; }
  void add_loss(const Tensor& weighted) const {
    if (report) report->losses.push_back(weighted);
  }
  void note(const std::string& name, const std::vector<double>& values) const {
    if (report) report->notes[name] = values;
  }
  const Tensor& show(const std::string& module, const Tensor& output) const {
    if (watch) watch(module, output);
    return output;
  }
};

// x + branch: the residual connection that a layer's last product adds to, the branch scaled per sample
// (stochastic depth) where `scale` (B) is given.
struct Residual {
  Tensor x;
  Tensor scale = {};
};

}  // namespace tessera
