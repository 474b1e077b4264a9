#include "models/fuse.h"

#include <algorithm>
#include <cmath>

#include "models/flops.h"
#include "optim/experts_averaging.h"

namespace tessera {

std::string dense_name(const std::string& stacked) {
  const size_t at = stacked.find(".moe.");
  TESSERA_CHECK(at != std::string::npos, "fuse: the stacked parameter ", stacked,
                " is not part of a mixture");
  return stacked.substr(0, at) + ".mlp." + stacked.substr(at + 5);
}

NamedTensors Model::fused_parameters() const {
  NamedTensors values;
  for (const auto& p : parameters_.parameters()) {
    if (p.experts < 2) {
      values[p.name] = p.value;
      continue;
    }
    const Shape& stacked = p.value.shape();
    Tensor mean(Shape(stacked.begin() + 1, stacked.end()), p.value.dtype());
    for_float("fuse", mean.dtype(), [&]<class T>() {
      mean_experts<T>(p.value.data<T>(), p.experts, mean.count(), mean.mutable_data<T>());
    });
    values[dense_name(p.name)] = mean;
  }
  return values;
}

std::unique_ptr<Model> fuse(const Model& model) {
  TESSERA_CHECK_AS(
      Exit::usage, !fused_config(model.config()).is_moe(), "fuse: the experts of ", model.config().name,
      " are chosen by a router, each for what it is; only those of a random partition have a mean that "
      "stands for all");
  const DType dtype = model.parameters().dtype();
  auto plain = make_model(fused_config(model.config()), std::nullopt, dtype);
  NamedTensors values = model.fused_parameters();
  for (const auto& p : plain->parameters().parameters()) {
    const auto found = values.find(p.name);
    TESSERA_CHECK(found != values.end() && found->second.shape() == p.value.shape(), "fuse: of ", p.name,
                  p.value.shape(), " of the fused model ", model.config().name, " gives ",
                  found == values.end() ? "nothing" : text(found->second.shape()));
    Tensor value = p.value;
    const Tensor fused = found->second.to(dtype);
    for_float("fuse", dtype,
              [&]<class T>() { std::copy_n(fused.data<T>(), fused.count(), value.mutable_data<T>()); });
    values.erase(found);
  }
  TESSERA_CHECK(values.empty(), "fuse: the fused model has no parameter ", values.begin()->first);
  return plain;
}

void set_experts_to_mean(Model& model) {
  for (const auto& p : model.parameters().parameters()) {
    if (p.experts < 2) continue;
    Tensor value = p.value;
    const int64_t count = value.count() / p.experts;
    for_float("set_experts_to_mean", value.dtype(), [&]<class T>() {
      T* const first = value.mutable_data<T>();
      std::vector<T> mean(static_cast<size_t>(count));
      mean_experts<T>(first, p.experts, count, mean.data());
      for (int64_t e = 0; e < p.experts; ++e) std::copy(mean.begin(), mean.end(), first + e * count);
    });
  }
}

double output_difference(const Model& a, const Model& b, const Tensor& images) {
  const Pass pass{.batch = images.size(0)};
  const Tensor left = a.forward(images, pass), right = b.forward(images, pass);
  double most = 0, largest = 0;
  for (int64_t i = 0; i < left.count(); ++i) {
    const double difference = std::abs(left.at(i) - right.at(i));
    if (std::isnan(difference)) return difference;
    most = std::max(most, difference);
    largest = std::max(largest, std::abs(left.at(i)));
  }
  return most / std::max(largest, 1e-30);
}

}  // namespace tessera
