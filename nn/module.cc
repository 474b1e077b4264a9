#include "nn/module.h"

#include <algorithm>
#include <cmath>

#include "engine/base/parallel.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// FNV-1a, so that a parameter's draws depend on its name and not on what was declared before it.
uint32_t name_site(std::string_view name) {
  uint32_t hash = 2166136261u;
  for (char c : name) hash = (hash ^ uint8_t(c)) * 16777619u;
  return hash;
}

double first_value(const Init& init, const Draw& draw, uint64_t element) {
  switch (init.kind) {
    case Init::Kind::zeros:
      return 0;
    case Init::Kind::ones:
      return 1;
    case Init::Kind::constant:
      return init.std;
    case Init::Kind::normal:
      return init.std * draw.normal(element);
    case Init::Kind::trunc_normal:
      for (uint64_t attempt = 0;; ++attempt) {
        const double z = draw.normal(element + (attempt << 40));
        if (std::abs(z) <= 2) return init.std * z;
      }
  }
  return 0;
}

constexpr int64_t kAlign = 16;  // elements: every parameter starts on a cache line

}  // namespace

Init Init::xavier_normal(int64_t inputs, int64_t outputs) {
  return normal(std::sqrt(2.0 / double(inputs + outputs)));
}

Tensor ParameterStore::add(const Shape& shape, Parameter parameter) {
  TESSERA_CHECK(!flat_, "parameter ", parameter.name, ": the store is laid out already");
  TESSERA_CHECK(!find(parameter.name), "parameter ", parameter.name, ": there are two of this name");
  parameter.value = Tensor::declare(shape, dtype_);
  if (parameter.learned) parameter.value.make_parameter(int(parameters_.size()));
  parameters_.push_back(std::move(parameter));
  return parameters_.back().value;
}

void ParameterStore::allocate(std::optional<uint64_t> seed) {
  int64_t end = 0;
  const auto lay_out = [&](bool learned, bool decay) {
    for (Parameter& p : parameters_)
      if (p.learned == learned && p.decay == decay) {
        p.offset = end;
        end += (p.value.count() + kAlign - 1) / kAlign * kAlign;
      }
    return end;
  };
  decayed_ = lay_out(true, true);
  learned_ = lay_out(true, false);
  lay_out(false, false);
  const Device device = Device::current();
  const Device::Scope host{Device()};  // where the first values are drawn
  flat_ = Tensor::zeros({end}, dtype_);
  for_float("parameters", dtype_, [&]<class T>() {
    T* const base = flat_.mutable_data<T>();
    for (Parameter& p : parameters_) {
      T* const values = base + p.offset;
      p.value.place(values, flat_);
      if (!seed) continue;
      const Draw draw{.seed = *seed, .stream = Stream::init, .site = name_site(p.name)};
      const int64_t period = p.value.count() / p.init.alike;
      parallel_for(period, 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) values[i] = T(first_value(p.init, draw, uint64_t(i)));
      });
      for (int64_t i = period; i < p.value.count(); ++i) values[i] = values[i - period];
    }
  });
  if (device.is_cuda()) move_to(device);
}

void ParameterStore::move_to(const Device& device) {
  if (flat_.device() == device) return;
  flat_ = flat_.to(device);
  const Device::Scope there(device);
  for_float("parameters", dtype_, [&]<class T>() {
    T* const base = flat_.mutable_data<T>();
    for (Parameter& p : parameters_) p.value.place(base + p.offset, flat_);
  });
  if (copies_) keep_copies();
}

void ParameterStore::keep_copies() {
  const Device::Scope there(flat_.device());
  copies_ = Tensor(flat_.shape(), DType::bf16);
  bf16* const base = copies_.mutable_data<bf16>();
  for (Parameter& p : parameters_) p.value.place_copy(base + p.offset, copies_);
  copied_.reset();
}

void ParameterStore::refresh_copies() {
  if (!copies_ || copied_ == writes()) return;
  narrow_to(copies_, flat_);
  copies_written();
}

uint64_t ParameterStore::writes() const {
  uint64_t writes = flat_.version();
  for (const Parameter& p : parameters_) writes += p.value.version();
  return writes;
}

const ParameterStore::Parameter* ParameterStore::find(std::string_view name) const {
  const auto found =
      std::find_if(parameters_.begin(), parameters_.end(), [&](const auto& p) { return p.name == name; });
  return found == parameters_.end() ? nullptr : &*found;
}

std::unique_ptr<ParameterGradients> ParameterStore::make_gradients() const {
  std::vector<int64_t> offsets;
  for (const Parameter& p : parameters_) offsets.push_back(p.offset);
  return std::make_unique<ParameterGradients>(std::move(offsets), learned(), dtype_);
}

int64_t ParameterStore::parameter_count() const {
  int64_t total = 0;
  for (const int64_t count : gradient_counts()) total += count;
  return total;
}

std::vector<int64_t> ParameterStore::gradient_counts() const {
  std::vector<int64_t> counts;
  for (const Parameter& p : parameters_) counts.push_back(p.learned ? p.value.count() : 0);
  return counts;
}

}  // namespace tessera
