// Every case of every op: finite differences in f64, the composed twin, accumulation, NaN-filled memory, f32
// against f64, the same bits twice, and nearly the same with one thread.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/base/parallel.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "tests/random_inputs.h"
#include "tests/worst.h"

namespace tessera {
namespace {

// Fixed random weights turn any result into one number, so that every output element matters.
Tensor weights_for(const Shape& shape, DType dtype) {
  static Tensor last;  // drawn once for all the runs of a case
  if (!last || !(last.shape() == shape)) {
    last = Tensor(shape, DType::f64);
    double* w = last.mutable_data<double>();
    const Draw draw{.seed = 8};
    for (int64_t i = 0; i < last.count(); ++i) w[i] = draw.normal(uint64_t(i));
  }
  return dtype == DType::f64 ? last : last.to(dtype);
}

double weighted(const Tensor& y, const Tensor& w) {
  double total = 0;
  for_float("weighted", y.dtype(), [&]<class T>() {
    const T *values = y.data<T>(), *weights = w.data<T>();
    for (int64_t i = 0, n = y.count(); i < n; ++i) total += double(values[i]) * double(weights[i]);
  });
  return total;
}

struct Run {
  Tensor y;
  std::vector<Tensor> grads;
};

enum class Prefill { none, nan, accumulate };

// Forward and backward of f on copies of the inputs; `prefill` fills the gradient memory before backward.
Run run(const std::function<Tensor(const Inputs&)>& f, const Inputs& inputs, DType dtype,
        Prefill prefill = Prefill::none) {
  Inputs leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.to(dtype).require_grad());
  Tape tape;
  Run result;
  {
    const Tape::Scope scope(&tape);
    Tensor y = f(leaves);
    result.y = y.clone().detach();
    const Tensor w = weights_for(y.shape(), dtype);
    Tensor loss({}, dtype);
    for_float("loss", dtype, [&]<class T>() { *loss.mutable_data<T>() = T(weighted(y, w)); });
    record("loss", {y}, loss, [w, gy = y.gradient()](const Gradient& gl) {
      for_float("loss", w.dtype(), [&]<class T>() {
        const auto dy = gy.target<T>();
        for (int64_t i = 0; i < w.count(); ++i) dy.put(i, *gl.read<T>() * w.data<T>()[i]);
      });
    });
    for (Tensor& leaf : leaves)
      if (prefill != Prefill::none)
        leaf.prefill_grad(prefill == Prefill::nan ? std::nan("") : 1.0, prefill == Prefill::accumulate);
    tape.backward(loss);
  }
  for (const Tensor& leaf : leaves)
    result.grads.push_back(leaf.gradient().written() ? leaf.grad() : Tensor());
  return result;
}

double largest(const Tensor& x) {
  double most = 0;
  for (int64_t i = 0; i < x.count(); ++i) most = worst(most, std::abs(x.at(i)));
  return most;
}

// What errors are measured by: the largest value, down to what rounding alone leaves of a 0.
double unit(const Tensor& x) { return std::max(largest(x), 1e-4); }

// The largest of all gradients of a case: in f32 a small one may be the difference of large ones.
double unit(const Run& run) {
  double most = 1e-6;
  for (const Tensor& grad : run.grads)
    if (grad) most = std::max(most, largest(grad));
  return most;
}

// Largest difference over the largest value.
double relative_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double most = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    most = worst(most, std::abs(a.at(i) - b.at(i)));
  }
  return most / unit(b);
}

bool same_bits(const Run& a, const Run& b) {
  const auto same = [](const Tensor& x, const Tensor& y) {
    if (!x && !y) return true;
    return x.shape() == y.shape() &&
           std::memcmp(x.data<float>(), y.data<float>(), size_t(x.count()) * sizeof(float)) == 0;
  };
  bool all = same(a.y, b.y);
  for (size_t i = 0; i < a.grads.size(); ++i) all = all && same(a.grads[i], b.grads[i]);
  return all;
}

void check_finite_differences(const OpCase& c, const Inputs& inputs, const Run& exact) {
  const int64_t kProbes = exact.y.count() > 60000 ? 3 : 12;
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (!exact.grads[k]) continue;
    const int64_t n = inputs[k].count();
    const double scale_of_grad = unit(exact.grads[k]);
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
        const Tensor up = outputs(step), down = outputs(-step), w = weights_for(up.shape(), DType::f64);
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
      const Run exact = run(c.run, inputs, DType::f64);
      check_finite_differences(c, inputs, exact);

      const Run twin = run(c.twin, inputs, DType::f64);
      CHECK(relative_difference(exact.y, twin.y) <= 1e-11);
      for (size_t k = 0; k < inputs.size(); ++k) {
        REQUIRE(bool(exact.grads[k]) == bool(twin.grads[k]));
        if (exact.grads[k]) CHECK(relative_difference(exact.grads[k], twin.grads[k]) <= 1e-9);
      }

      const Run overwritten = run(c.run, inputs, DType::f64, Prefill::nan);
      const Run added = run(c.run, inputs, DType::f64, Prefill::accumulate);
      for (size_t k = 0; k < inputs.size(); ++k) {
        if (!exact.grads[k]) continue;
        CHECK(relative_difference(overwritten.grads[k], exact.grads[k]) == 0);
        double most = 0;
        for (int64_t i = 0; i < inputs[k].count(); ++i)
          most = worst(most, std::abs(added.grads[k].at(i) - 1 - exact.grads[k].at(i)));
        CHECK(most / std::max(1.0, largest(exact.grads[k])) <= 1e-13);
      }

      const int threads = thread_count();
      const Run single = run(c.run, inputs, DType::f32);
      CHECK(relative_difference(single.y, exact.y) <= 2e-5);
      for (size_t k = 0; k < inputs.size(); ++k)
        if (exact.grads[k])
          CHECK(relative_difference(single.grads[k], exact.grads[k]) * unit(exact.grads[k]) <=
                1e-4 * unit(exact));
      CHECK(same_bits(single, run(c.run, inputs, DType::f32)));
      set_thread_count(1);
      const Run one_thread = run(c.run, inputs, DType::f32);
      set_thread_count(threads);
      CHECK(relative_difference(one_thread.y, single.y) <= 1e-5);
      for (size_t k = 0; k < inputs.size(); ++k)
        if (exact.grads[k])
          CHECK(relative_difference(one_thread.grads[k], single.grads[k]) * unit(single.grads[k]) <=
                1e-4 * unit(exact));
    }
}

}  // namespace
}  // namespace tessera
