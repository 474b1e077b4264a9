// 6. Random uniform partition: experts without a router (EWA, arXiv 2308.06093).
//
// A mixture of experts needs to know which expert serves which token. Here nobody decides: every pass deals
// all token rows out at random, in parts whose sizes differ by at most one.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "nn/moe/random_partition.h"

using namespace tessera;

static double difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  for (int64_t i = 0; i < a.count(); ++i) most = std::max(most, std::abs(a.at(i) - b.at(i)));
  return most;
}

int main() {
  const int64_t B = 2, N = 5, C = 6, hidden = 8, E = 4;  // 10 rows for 4 experts: 3, 3, 2, 2

  for (uint32_t step = 0; step < 2; ++step) {
    const Pass pass{.training = true, .step = step, .batch = B};
    const Dispatch deal = random_partition(PartitionScope::batch, E, B, N, pass, 0);
    std::cout << "step " << step << ":\n";
    for (size_t e = 0; e < size_t(E); ++e) {
      std::cout << "  expert " << e << " gets rows";
      for (int64_t i = deal.offsets[e]; i < deal.offsets[e + 1]; ++i) std::cout << ' ' << deal.order.at(i);
      std::cout << '\n';
    }
  }

  // The layer: order the rows by expert, run the experts on their parts, put the rows back.
  const auto output = [&](ExpertInit init, uint32_t step) {
    ParameterStore store(DType::f32);
    const RandomPartitionMoe moe(Scope(store) / "moe", E, C, hidden, WeightInit::xavier, init,
                                 PartitionScope::batch, 0);
    store.allocate(1);
    const Tensor x = Tensor::full({B, N, C}, 1);
    return moe.forward(x, {Tensor::zeros(x.shape())}, Pass{.training = true, .step = step, .batch = B});
  };

  // Experts that are alike make one feed-forward layer, whoever serves whom; others do not.
  const double alike = difference(output(ExpertInit::alike, 0), output(ExpertInit::alike, 1));
  const double others = difference(output(ExpertInit::independent, 0), output(ExpertInit::independent, 1));
  std::cout << "from one partition to another the output changes by " << alike << " (experts alike) and "
            << others << " (independent)\n";
  return alike < 1e-6 && others > 1e-3 ? 0 : 1;
}
