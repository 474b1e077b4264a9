#include "nn/moe/image_router.h"

#include <algorithm>

namespace tessera {
namespace {

// i32 (B N, k): every row of chosen(B,k) N times.
Tensor for_all_tokens(const Tensor& chosen, int64_t N) {
  const int64_t B = chosen.size(0), k = chosen.size(1);
  const std::vector<int32_t> own = chosen.values<int32_t>();
  std::vector<int32_t> all;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t n = 0; n < N; ++n) all.insert(all.end(), own.begin() + b * k, own.begin() + (b + 1) * k);
  return Tensor::of({B * N, k}, all);
}

// Scores whose order is that of the shares that super-classes have in the truth, to a thousandth; of equal
// ones, such as all those that have none, the gates decide.
Tensor truth_first(const Tensor& truth, const Tensor& gates) { return add(scale(truth, 1000), gates); }

// The part of the images whose likeliest super-class has the largest gate.
double accuracy(const Tensor& gates, const Tensor& truth) {
  const auto got = top_k(gates, 1).values<int32_t>(), want = top_k(truth, 1).values<int32_t>();
  int64_t right = 0;
  for (size_t b = 0; b < got.size(); ++b) right += got[b] == want[b];
  return double(right) / double(std::max<size_t>(1, got.size()));
}

}  // namespace

Tensor ImageRouter::superclass_targets(const Tensor& targets, DType dtype) const {
  const int64_t B = targets.size(0), K = int64_t(superclass_.size()), E = weight_.size(0);
  Tensor truth;
  const bool soft = targets.dtype() != DType::i32;
  TESSERA_CHECK_AS(Exit::usage, !soft || targets.size(1) == K, name_, ": targets", targets.shape(),
                   ", but model.moe.groups has ", K, " classes");
  for_float("superclass_targets", dtype, [&]<class T>() {
    std::vector<T> to(size_t(B * E), T(0));
    const std::vector<T> shares = soft ? targets.values<T>() : std::vector<T>();
    const std::vector<int32_t> labels = soft ? std::vector<int32_t>() : targets.values<int32_t>();
    for (int64_t b = 0; b < B; ++b) {
      if (soft) {
        for (int64_t k = 0; k < K; ++k)
          to[size_t(b * E + superclass_[size_t(k)])] += shares[size_t(b * K + k)];
      } else {
        const int32_t label = labels[size_t(b)];
        TESSERA_CHECK_AS(Exit::data, label >= 0 && label < K, name_, ": label ", label, " of sample ", b,
                         " is not one of the ", K, " classes of model.moe.groups");
        to[size_t(b * E + superclass_[size_t(label)])] = T(1);
      }
    }
    truth = Tensor::of({B, E}, to);
  });
  return truth;
}

Routing ImageRouter::route(const Tensor& images, int64_t N, const Pass& pass) const {
  const int64_t B = images.size(0), C = images.size(1), E = weight_.size(0), k = options_.k;
  const Scores scores = score(images.reshape({B, 1, C}), weight_, taught() ? 0 : options_.noise, pass, site_);
  const Tensor gates = softmax(scores.noisy);
  Tensor chosen = top_k(gates, k);
  TESSERA_CHECK(!pass.training || !taught() || bool(pass.targets), name_, ": training needs Pass::targets");
  if (taught() && pass.targets) {
    const Tensor truth = superclass_targets(pass.targets, images.dtype());
    if (pass.training) {
      if (options_.routes == TrainingRoutes::truth) chosen = top_k(truth_first(truth, gates.detach()), k);
      pass.add_loss(scale(softmax_cross_entropy(scores.logits, truth), options_.superclass_loss));
    }
    pass.note(name_ + ".accuracy", {accuracy(gates, truth)});
  } else if (pass.training) {
    check_groups("image router", B, options_, pass);
    pass.add_loss(balance_loss(scores, chosen, options_, options_.group));
  }
  Routing routing = place(for_all_tokens(chosen, N), E);
  const Tensor own = options_.renormalize ? softmax(pick(scores.noisy, chosen)) : pick(gates, chosen);
  routing.gates = add(own.reshape({B, 1, k}), Tensor::zeros({B, N, k}, images.dtype())).reshape({B * N, k});
  pass.note(name_ + ".load", routing.load());
  return routing;
}

}  // namespace tessera
