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

std::unique_ptr<Model> fuse(const Model& model) {
  TESSERA_CHECK_AS(
      Exit::usage, !fused_config(model.config()).is_moe(), "fuse: the experts of ", model.config().name,
      " are chosen by a router, each for what it is; only those of a random partition have a mean that "
      "stands for all");
  auto dense = make_model(fused_config(model.config()), std::nullopt, model.parameters().dtype());
  for (const auto& p : model.parameters().parameters()) {
    const std::string name = p.experts > 1 ? dense_name(p.name) : p.name;
    const auto* target = dense->parameters().find(name);
    TESSERA_CHECK(target, "fuse: the dense model has no parameter ", name);
    Tensor value = target->value;
    for_float("fuse", p.value.dtype(), [&]<class T>() {
      mean_experts<T>(p.value.data<T>(), p.experts, value.count(), value.mutable_data<T>());
    });
  }
  return dense;
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
