// The tape: ops run when called and append a node; backward walks the list from its end and destroys each
// closure as soon as it has run. No graph search, no recursion.
#pragma once

#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

#include "engine/tensor/tensor.h"

namespace tessera {

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // The tape that ops on this thread record to; null: nothing is recorded.
  static Tape*& current();

  // What an op does in backward, given the gradient of its output.
  using Closure = std::function<void(const Gradient& output)>;

  // Seeds dL/dloss with `seed` and runs every closure once, last first; the tape is empty afterwards. Checks
  // that each op wrote every gradient it promised, and that nothing it saved was overwritten since.
  void backward(const Tensor& loss, double seed = 1.0);

  void append(const char* name, std::initializer_list<Tensor> inputs, Tensor& output, Closure closure);
  size_t size() const { return nodes_.size(); }

  // RAII: records to a tape (or, with null, to none) while it lives.
  class Scope {
   public:
    explicit Scope(Tape* tape) : former_(std::exchange(current(), tape)) {}
    ~Scope() { current() = former_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Tape* former_;
  };

 private:
  struct Saved {
    std::weak_ptr<detail::Storage> storage;
    uint32_t version;
  };
  struct Node {
    const char* name;
    std::vector<Gradient> inputs;  // those that want a gradient
    std::vector<Saved> saved;
    Gradient output;
    Closure closure;
  };
  std::vector<Node> nodes_;
};

// Adds an op to the tape, if there is one and an input wants a gradient: `output` then wants one too.
// `closure` captures exactly what backward reads.
template <class F>
void record(const char* name, std::initializer_list<Tensor> inputs, Tensor& output, F&& closure) {
  if (Tape* tape = Tape::current())
    for (const Tensor& input : inputs)
      if (input.requires_grad()) return tape->append(name, inputs, output, std::forward<F>(closure));
}

// For an op that has no backward: refuses inputs that want a gradient while a tape records.
void refuse_gradient(const char* name, std::initializer_list<Tensor> inputs);

// The gradients of all parameters of a flat store, one buffer a replica. Set by whoever runs the step.
class ParameterGradients {
 public:
  ParameterGradients() = default;
  // `offsets` of each parameter in a buffer of `count` elements.
  ParameterGradients(std::vector<int64_t> offsets, int64_t count, DType dtype);

  static ParameterGradients& current();
  class Scope {
   public:
    explicit Scope(ParameterGradients& gradients);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ParameterGradients* former_;
  };

  bool written(int parameter) const { return written_[size_t(parameter)] != 0; }
  void* open(int parameter);
  // Forgets all gradients without touching their memory.
  void clear();
  // Zeroes what no op wrote, so that the whole buffer may be read.
  void fill_unwritten(const std::vector<int64_t>& counts);
  Tensor& flat() { return flat_; }

 private:
  std::vector<int64_t> offsets_;
  std::vector<char> written_;
  Tensor flat_;
};

}  // namespace tessera
