#include "engine/tensor/tape.h"

#include <algorithm>

#include "engine/tensor/memory.h"

namespace tessera {

Tape*& Tape::current() {
  thread_local Tape* tape = nullptr;
  return tape;
}

void Tape::append(const char* name, std::initializer_list<Tensor> inputs, Tensor& output, Closure closure) {
  output.require_grad();
  Node node{name, {}, {}, output.gradient(), std::move(closure)};
  for (const Tensor& input : inputs) {
    if (!input) continue;
    if (input.requires_grad()) node.inputs.push_back(input.gradient());
    node.saved.push_back({input.storage_, input.version()});
  }
  node.saved.push_back({output.storage_, output.version()});
  nodes_.push_back(std::move(node));
}

void Tape::backward(const Tensor& loss, double seed) {
  TESSERA_CHECK(loss.count() == 1, "backward: the loss must be a single number, got ", loss.shape(),
                "; take its mean or sum first");
  TESSERA_CHECK(loss.requires_grad(),
                "backward: the loss does not depend on anything that requires a gradient");
  const Scope off(nullptr);
  for_float("backward", loss.dtype(), [&]<class T>() { fill(loss.gradient().target<T>().data, 1, T(seed)); });
  std::vector<Node> nodes = std::move(nodes_);  // gone too if a closure throws
  nodes_.clear();
  while (!nodes.empty()) {
    Node node = std::move(nodes.back());
    nodes.pop_back();
    if (!node.output.written()) continue;  // the loss does not depend on it
    for (const Saved& saved : node.saved)
      if (const auto storage = saved.storage.lock())
        TESSERA_CHECK(storage->version == saved.version, "backward: ", node.name,
                      ": a tensor that it saved was overwritten after the forward pass");
    node.closure(node.output);
    for (const Gradient& input : node.inputs)
      TESSERA_CHECK(input.written(), "backward: ", node.name, " did not write the gradient of its input ",
                    input.shape());
  }
}

void refuse_gradient(const char* name, std::initializer_list<Tensor> inputs) {
  if (!Tape::current()) return;
  for (const Tensor& input : inputs)
    TESSERA_CHECK(!input.requires_grad(), name, ": has no gradient, but its input ", input.shape(),
                  " requires one; pass detach(x) if that is meant");
}

ParameterGradients::ParameterGradients(std::vector<int64_t> offsets, int64_t count, DType dtype)
    : offsets_(std::move(offsets)), written_(offsets_.size(), 0), flat_(Tensor::zeros({count}, dtype)) {}

namespace {
thread_local ParameterGradients* current_gradients = nullptr;
}

ParameterGradients& ParameterGradients::current() {
  TESSERA_CHECK(current_gradients,
                "backward: a model's parameter needs a ParameterGradients::Scope on this thread");
  return *current_gradients;
}

ParameterGradients::Scope::Scope(ParameterGradients& gradients)
    : former_(std::exchange(current_gradients, &gradients)) {}
ParameterGradients::Scope::~Scope() { current_gradients = former_; }

void* ParameterGradients::open(int parameter) {
  written_[size_t(parameter)] = 1;
  std::byte* const base = flat_.dtype() == DType::f32
                              ? reinterpret_cast<std::byte*>(flat_.mutable_data<float>())
                              : reinterpret_cast<std::byte*>(flat_.mutable_data<double>());
  return base + offsets_[size_t(parameter)] * bytes(flat_.dtype());
}

void ParameterGradients::clear() { std::fill(written_.begin(), written_.end(), 0); }

void ParameterGradients::fill_unwritten(const std::vector<int64_t>& counts) {
  for (size_t i = 0; i < written_.size(); ++i)
    if (!written_[i] && counts[i] > 0) zero(open(int(i)), size_t(counts[i] * bytes(flat_.dtype())));
}

}  // namespace tessera
