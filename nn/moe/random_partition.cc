#include "nn/moe/random_partition.h"

namespace tessera {

int64_t part_of(int64_t place, int64_t size, int64_t E) {
  const int64_t small = size / E, larger = size % E;  // `larger` parts of small + 1 rows come first
  const int64_t in_larger = larger * (small + 1);
  return place < in_larger ? place / (small + 1) : larger + (place - in_larger) / small;
}

Dispatch group_by_expert(const std::vector<int32_t>& expert, int64_t E) {
  Dispatch dispatch{{}, std::vector<int64_t>(size_t(E) + 1, 0)};
  for (int32_t e : expert) ++dispatch.offsets[size_t(e) + 1];
  for (size_t e = 0; e < size_t(E); ++e) dispatch.offsets[e + 1] += dispatch.offsets[e];
  std::vector<int64_t> next(dispatch.offsets.begin(), dispatch.offsets.end() - 1);
  std::vector<int32_t> order(expert.size());
  for (size_t row = 0; row < expert.size(); ++row) order[size_t(next[size_t(expert[row])]++)] = int32_t(row);
  dispatch.order = Tensor::of({int64_t(order.size())}, order);
  return dispatch;
}

Dispatch random_partition(PartitionScope scope, int64_t E, int64_t B, int64_t N, const Pass& pass,
                          uint32_t site) {
  const Draw draw = pass.draw(Stream::partition, site);
  const int64_t batch = pass.batch > 0 ? pass.batch : B;
  std::vector<int32_t> expert(size_t(B * N));
  const auto cut = [&](int64_t size, auto place_of_row, const Draw& key) {
    const Permutation permutation(uint64_t(size), key);
    for (int64_t row = 0; row < B * N; ++row)
      expert[size_t(row)] = int32_t(part_of(int64_t(permutation.at(uint64_t(place_of_row(row)))), size, E));
  };
  switch (scope) {
    case PartitionScope::batch:
      TESSERA_CHECK(pass.first_sample + B <= batch, "random_partition: samples ", pass.first_sample, " to ",
                    pass.first_sample + B, " of a batch of ", batch,
                    "; Pass::batch is the size of the whole batch");
      cut(
          batch * N, [&](int64_t row) { return pass.first_sample * N + row; }, draw);
      break;
    case PartitionScope::per_image:
      cut(
          N, [&](int64_t row) { return row % N; }, draw);
      break;
    case PartitionScope::replica: {
      // Each micro-batch has draws of its own, told apart by its first sample.
      Draw own = draw;
      own.site = draw.block(uint64_t(pass.first_sample))[0];
      cut(
          B * N, [](int64_t row) { return row; }, own);
      break;
    }
  }
  return group_by_expert(expert, E);
}

Tensor RandomPartitionMoe::forward(const Tensor& x, const Residual& residual, const Pass& pass) const {
  return forward(x, random_partition(partition_, count_, x.size(0), x.size(1), pass, site_), residual, pass);
}

Tensor RandomPartitionMoe::forward(const Tensor& x, const Dispatch& dispatch, const Residual& residual,
                                   const Pass& pass) const {
  const int64_t B = x.size(0), N = x.size(1), C = x.size(2);
  const Tensor rows = permute_rows(x.reshape({B * N, C}), dispatch.order);
  const Tensor out = experts_.forward(rows, dispatch.offsets, B, N, pass,
                                      [&](const Tensor& mask) { return permute_rows(mask, dispatch.order); });
  return combine_rows(out, dispatch.order, residual.x, residual.scale);
}

}  // namespace tessera
