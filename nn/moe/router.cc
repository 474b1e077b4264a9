#include "nn/moe/router.h"

#include <algorithm>

namespace tessera {

Scores score(const Tensor& x, const Tensor& weight, double noise, const Pass& pass, uint32_t site) {
  const int64_t B = x.size(0), N = x.size(1), E = weight.size(0);
  const Tensor logits = linear(widen(x), weight);
  Tensor noisy = logits;
  if (pass.training && noise > 0)
    noisy = add(logits, normal_noise(logits.shape(), noise / double(E), pass.draw(Stream::routing, site),
                                     pass.first_sample, logits.dtype()));
  return {logits.reshape({B * N, E}), noisy.reshape({B * N, E})};
}

namespace {

// i32 (M,1): the last of each row's k choices.
Tensor last_choices(const Tensor& chosen) {
  const int64_t M = chosen.size(0), k = chosen.size(1);
  const std::vector<int32_t> all = chosen.values<int32_t>();
  std::vector<int32_t> last;
  for (int64_t i = 0; i < M; ++i) last.push_back(all[size_t(i * k + k - 1)]);
  return Tensor::of({M, 1}, last);
}

}  // namespace

Tensor balance_loss(const Scores& scores, const Tensor& chosen, const RouterOptions& options, int64_t rows) {
  const int64_t M = scores.logits.size(0), E = scores.logits.size(1);
  Tensor loss = Tensor::zeros({}, scores.logits.dtype());
  const auto add_groups = [&](const Tensor& shares, double weight) {
    for (int64_t begin = 0; begin < M; begin += rows) {
      const int64_t end = std::min(M, begin + rows);
      const Tensor variation = squared_variation(mean(slice(shares, 0, begin, end), 0));
      loss = add(loss, scale(variation, weight * double(end - begin) / double(M)));
    }
  };
  if (options.importance > 0) add_groups(softmax(scores.logits), options.importance);
  if (options.load > 0 && options.noise > 0) {
    const Tensor threshold = pick(scores.noisy, last_choices(chosen));
    const Tensor above = add(scores.logits, scale(threshold, -1));
    add_groups(normal_cdf(scale(above, double(E) / options.noise)), options.load);
  }
  return loss;
}

void check_groups(const char* router, int64_t B, const RouterOptions& options, const Pass& pass) {
  const int64_t begin = pass.first_sample, end = begin + B;
  TESSERA_CHECK(begin % options.group == 0 && (end % options.group == 0 || end >= pass.batch), router,
                ": samples ", begin, " to ", end, " of a batch of ", pass.batch,
                " are no whole groups of model.moe.group = ", options.group);
}

}  // namespace tessera
