#include "nn/moe/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/ops/ops.h"

namespace tessera {

std::vector<double> Routing::load() const {
  std::vector<double> shares;
  const double all = double(std::max<int64_t>(1, offsets.back()));
  for (int64_t e = 0; e < experts(); ++e)
    shares.push_back(double(offsets[size_t(e) + 1] - offsets[size_t(e)]) / all);
  return shares;
}

Tensor top_k(const Tensor& scores, int64_t k) {
  Dims dim("top_k");
  dim(scores, "scores(M,E)");
  const int64_t M = dim['M'], E = dim['E'];
  TESSERA_CHECK(k >= 1 && k <= E, "top_k: ", k, " of the E=", E, " experts");
  std::vector<int32_t> chosen, experts(static_cast<size_t>(E));
  for_float("top_k", scores.dtype(), [&]<class T>() {
    const std::vector<T> values = scores.values<T>();
    for (int64_t i = 0; i < M; ++i) {
      const T* const row = values.data() + i * E;
      std::iota(experts.begin(), experts.end(), 0);
      std::partial_sort(experts.begin(), experts.begin() + k, experts.end(),
                        [=](int32_t a, int32_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });
      chosen.insert(chosen.end(), experts.begin(), experts.begin() + k);
    }
  });
  return Tensor::of({M, k}, chosen);
}

int64_t Capacity::of(int64_t T, int64_t k, int64_t E) const {
  const int64_t even = int64_t(std::ceil(double(k * T) * factor / double(E)));
  return (even + 3) / 4 * 4;
}

Routing place(const Tensor& chosen, int64_t E, const Capacity& capacity) {
  Dims dim("place");
  dim(chosen, "chosen(M,k)");
  const int64_t M = dim['M'], k = dim['k'];
  const int64_t group = capacity.rows > 0 ? capacity.rows : std::max<int64_t>(1, M);
  const std::vector<int32_t> expert = chosen.values<int32_t>();
  const Tensor priority = capacity.priority ? capacity.priority.to(Device()) : Tensor();
  std::vector<char> kept(size_t(M * k), 1);
  std::vector<int64_t> order(static_cast<size_t>(M));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t begin = 0; begin < M && capacity.factor > 0; begin += group) {
    const int64_t end = std::min(M, begin + group), most = capacity.of(end - begin, k, E);
    if (priority)
      std::stable_sort(order.begin() + begin, order.begin() + end,
                       [&](int64_t a, int64_t b) { return priority.at(a) > priority.at(b); });
    std::vector<int64_t> taken(size_t(E), 0);
    for (int64_t j = 0; j < k; ++j)
      for (int64_t i = begin; i < end; ++i) {
        const int64_t choice = order[size_t(i)] * k + j;
        int64_t& count = taken[size_t(expert[size_t(choice)])];
        kept[size_t(choice)] = count < most;
        count += kept[size_t(choice)];
      }
  }
  Routing routing{{}, {}, std::vector<int64_t>(size_t(E) + 1, 0)};
  for (int64_t choice = 0; choice < M * k; ++choice)
    routing.offsets[size_t(expert[size_t(choice)]) + 1] += kept[size_t(choice)];
  std::partial_sum(routing.offsets.begin(), routing.offsets.end(), routing.offsets.begin());
  std::vector<int64_t> next(routing.offsets.begin(), routing.offsets.end() - 1);
  std::vector<int32_t> slots;
  for (int64_t choice = 0; choice < M * k; ++choice)
    slots.push_back(kept[size_t(choice)] ? int32_t(next[size_t(expert[size_t(choice)])]++) : -1);
  routing.slots = Tensor::of({M, k}, slots);
  return routing;
}

Tensor through_experts(const Experts& experts, const Tensor& x, const Routing& routing,
                       const Residual& residual, const Pass& pass) {
  const int64_t B = x.size(0), N = x.size(1), C = x.size(2), R = routing.offsets.back();
  const int64_t k = routing.slots.size(1);
  const Tensor rows = dispatch_rows(widen(x).reshape({B * N, C}), routing.slots, R);
  const Tensor out = experts.forward(rows, routing.offsets, B, N * k, pass, [&](const Tensor& mask) {
    return dispatch_rows(mask, routing.slots.reshape({B * N * k, 1}), R);  // each expert's draw is its own
  });
  return combine_gated(out, routing.gates, routing.slots, residual.x, residual.scale);
}

}  // namespace tessera
