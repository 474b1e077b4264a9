// Every case of every op: finite differences in f64, the composed twin, accumulation, NaN-filled memory, f32
// against f64, the same bits twice, and nearly the same with one thread.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/base/parallel.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "tests/op_run.h"
#include "tests/worst.h"

namespace tessera {
namespace {

void check_finite_differences(const OpCase& c, const Inputs& inputs, const Run& exact) {
  const int64_t kProbes = exact.y.count() > 60000 ? 3 : 12;
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (!exact.grads[k]) continue;
    const int64_t n = inputs[k].count();
    const double scale_of_grad = magnitude(exact.grads[k]);
    for (int64_t probe = 0; probe < std::min(n, kProbes); ++probe) {
      const int64_t i = n <= kProbes ? probe : int64_t(Draw{.seed = 9}.below(uint32_t(n), uint64_t(probe)));
      const double h = 1e-4;
      // Two central differences combined (Richardson): the error is of order h^4. Summed as differences of
      // outputs, so that many unrelated rows add no rounding.
      const auto outputs = [&](double step) {
        Inputs moved = inputs;
        moved[k] = inputs[k].clone();
        moved[k].mutable_data<double>()[i] += step;
        return c.run(moved);
      };
      const auto central = [&](double step) {
        const Tensor up = outputs(step), down = outputs(-step), w = slopes_for(up.shape(), DType::f64);
        const double *upper = up.data<double>(), *lower = down.data<double>(), *weights = w.data<double>();
        double total = 0;
        for (int64_t j = 0, n = up.count(); j < n; ++j) total += (upper[j] - lower[j]) * weights[j];
        return total / (2 * step);
      };
      const double slope = (4 * central(h / 2) - central(h)) / 3;
      INFO(c.op, " input ", k, " element ", i);
      CHECK(std::abs(slope - exact.grads[k].at(i)) / scale_of_grad <= 1e-6);
    }
  }
}

TEST_CASE("every case of every op") {
  REQUIRE(op_cases().size() > 30);
  for (const OpCase& c : op_cases())
    for (const char* shapes : c.shapes) {
      CAPTURE(c.op);
      CAPTURE(shapes);
      Inputs inputs = random_inputs(shapes);
      if (c.prepare) c.prepare(inputs);
      const Run exact = run(c, inputs, Device(), DType::f64);
      check_finite_differences(c, inputs, exact);

      OpCase simpler = c;
      simpler.run = c.twin;
      const Run twin = run(simpler, inputs, Device(), DType::f64);
      CHECK(relative_difference(exact.y, twin.y) <= 1e-11);
      for (size_t k = 0; k < inputs.size(); ++k) {
        REQUIRE(bool(exact.grads[k]) == bool(twin.grads[k]));
        if (exact.grads[k]) CHECK(relative_difference(exact.grads[k], twin.grads[k]) <= 1e-9);
      }

      const Run overwritten = run(c, inputs, Device(), DType::f64, Before::nan);
      const Run added = run(c, inputs, Device(), DType::f64, Before::ones);
      for (size_t k = 0; k < inputs.size(); ++k) {
        if (!exact.grads[k]) continue;
        CHECK(relative_difference(overwritten.grads[k], exact.grads[k]) == 0);
        double most = 0;
        for (int64_t i = 0; i < inputs[k].count(); ++i)
          most = worst(most, std::abs(added.grads[k].at(i) - 1 - exact.grads[k].at(i)));
        CHECK(most / std::max(1.0, magnitude(exact.grads[k])) <= 1e-13);
      }

      const int threads = thread_count();
      const Run single = run(c, inputs, Device(), DType::f32);
      CHECK(relative_difference(single.y, exact.y) <= 2e-5);
      for (size_t k = 0; k < inputs.size(); ++k)
        if (exact.grads[k])
          CHECK(relative_difference(single.grads[k], exact.grads[k]) * magnitude(exact.grads[k]) <=
                1e-4 * magnitude_of(exact.grads, 1e-6));
      const Run again = run(c, inputs, Device(), DType::f32);
      CHECK(same_bits(single.y, again.y));
      CHECK(same_bits(single.grads, again.grads));
      set_thread_count(1);
      const Run one_thread = run(c, inputs, Device(), DType::f32);
      set_thread_count(threads);
      CHECK(relative_difference(one_thread.y, single.y) <= 1e-5);
      for (size_t k = 0; k < inputs.size(); ++k)
        if (exact.grads[k])
          CHECK(relative_difference(one_thread.grads[k], single.grads[k]) * magnitude(single.grads[k]) <=
                1e-4 * magnitude_of(exact.grads, 1e-6));
    }
}

}  // namespace
}  // namespace tessera
