#include "nn/moe/random_partition.h"

#include "engine/kernels/rows.h"

namespace tessera {

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

namespace {

// Rows to the places that the permutation gives them, those of an expert copy after copy. Each makes the
// permutation anew: only there is the step known (Draw::step_on_card).
struct PlaceRows {
  PartitionDraw draw;
  int64_t size, E, copies;
  int32_t* order;
  TESSERA_FN void operator()(int64_t row) const {
    const Permutation permutation = draw.permutation(size);
    const int64_t copy = row / size, place = int64_t(permutation.at(uint64_t(row % size)));
    const int64_t e = part_of(place, size, E), start = part_start(e, size, E);
    const int64_t length = part_start(e + 1, size, E) - start;
    order[start * copies + copy * length + place - start] = int32_t(row);
  }
};

}  // namespace

Dispatch place_by_expert(const PartitionDraw& draw, int64_t size, int64_t E, int64_t copies) {
  Dispatch dispatch{Tensor({copies * size}, DType::i32), {}};
  for (int64_t e = 0; e <= E; ++e) dispatch.offsets.push_back(part_start(e, size, E) * copies);
  elements(copies * size, PlaceRows{draw, size, E, copies, dispatch.order.mutable_data<int32_t>()});
  return dispatch;
}

Dispatch random_partition(PartitionScope scope, int64_t E, int64_t B, int64_t N, const Pass& pass,
                          uint32_t site) {
  PartitionDraw draw{pass.draw(Stream::partition, site)};
  const int64_t batch = pass.batch > 0 ? pass.batch : B, all = pass.tokens > 0 ? pass.tokens : N;
  int64_t size = B * all, first = 0;  // rows that are permuted together; the place of ours among them
  switch (scope) {
    case PartitionScope::batch:
      TESSERA_CHECK(pass.first_sample + B <= batch, "random_partition: samples ", pass.first_sample, " to ",
                    pass.first_sample + B, " of a batch of ", batch,
                    "; Pass::batch is the size of the whole batch");
      size = batch * all;
      first = pass.first_sample * all;
      break;
    case PartitionScope::per_image:
      size = all;
      break;
    case PartitionScope::replica:
      draw.replica = pass.first_sample;
      break;
  }
  if (on_card() && N == all && B * N % size == 0) return place_by_expert(draw, size, E, B * N / size);
  const Permutation permutation = draw.permutation(size);
  std::vector<int32_t> expert(size_t(B * N));
  for (int64_t row = 0; row < B * N; ++row) {
    const int64_t place = first + row / N * all + row % N;
    expert[size_t(row)] = int32_t(part_of(int64_t(permutation.at(uint64_t(place % size))), size, E));
  }
  return group_by_expert(expert, E);
}

// How many of the first tokens an expert gets is left to chance, and a card's products are asked for before
// the draw.
bool RandomPartitionMoe::takes_first_tokens(const Pass& pass) const {
  return !on_card() && !experts_.dropout.draws(pass);
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
