#include "optim/experts_averaging.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/base/check.h"
#include "engine/kernels/rows.h"
#include "engine/tensor/tensor.h"
#include "optim/blocks.h"

namespace tessera {

namespace {

// mean(n) of E rows, `stride` apart. Summed as distances from the first: exact for equal experts, and more
// precise the closer they are.
template <class T>
void mean_of_rows(const T* stacked, int64_t experts, int64_t stride, int64_t n, T* mean) {
  const Row row;
  std::fill_n(mean, n, T(0));
  for (int64_t e = 1; e < experts; ++e)
    row.each(n, [=, expert = stacked + e * stride](int64_t j) { mean[j] += expert[j] - stacked[j]; });
  row.each(n, [=, share = T(1) / T(experts)](int64_t j) { mean[j] = stacked[j] + share * mean[j]; });
}

// The same for a card, an element at a time.
template <class T>
struct Averaging {
  int64_t experts, stride;
  T keep;
  T* stacked;
  bf16* copies = nullptr;  // of the same, or none
  TESSERA_FN T mean(int64_t j) const {
    T sum = 0;
    for (int64_t e = 1; e < experts; ++e) sum += stacked[e * stride + j] - stacked[j];
    return stacked[j] + T(1) / T(experts) * sum;
  }
  TESSERA_FN void operator()(int64_t j) const {
    const T center = mean(j);
    for (int64_t e = 0; e < experts; ++e) {
      T& own = stacked[e * stride + j];
      own = center + keep * (own - center);
      if (copies) copies[e * stride + j] = float(own);
    }
  }
};

// Some parameters, for one launch: as many as fit in the 4 KB of arguments that every card's kernels take.
struct Several {
  static constexpr size_t kMost = 160;
  std::array<StackedParameter, kMost> parameters;
  // The parameter of the i-th unit of all of them, a parameter having units(it); i becomes the unit's number
  // there.
  template <class F>
  TESSERA_FN const StackedParameter& find(int64_t& i, F units) const {
    size_t p = 0;
    for (; i >= units(parameters[p]); ++p) i -= units(parameters[p]);
    return parameters[p];
  }
};

// Calls f(several, how many units they have together) until all have been there.
template <class F, class G>
void each_several(std::span<const StackedParameter> parameters, F units, G f) {
  while (!parameters.empty()) {
    const size_t n = std::min(Several::kMost, parameters.size());
    Several several{};
    int64_t total = 0;
    for (size_t p = 0; p < n; ++p) total += units(several.parameters[p] = parameters[p]);
    f(several, total);
    parameters = parameters.subspan(n);
  }
}

struct Elements {
  TESSERA_FN int64_t operator()(const StackedParameter& p) const { return p.experts > 1 ? p.count : 0; }
};
struct Blocks {
  TESSERA_FN int64_t operator()(const StackedParameter& p) const { return (p.count + kBlock - 1) / kBlock; }
};

// The share rate that makes all experts equal.
TESSERA_FN double full_share(const StackedParameter& parameter) {
  return double(parameter.experts - 1) / double(parameter.experts);
}

template <class T>
struct AverageSeveral {
  Several several;
  T* values;
  bf16* copies;
  const StepNumbers* numbers;
  TESSERA_FN void operator()(int64_t i) const {
    if (numbers->stopped || numbers->share_rate == 0) return;
    const StackedParameter& of = several.find(i, Elements());
    Averaging<T>{of.experts, of.count, T(1 - numbers->share_rate / full_share(of)), values + of.offset,
                 copies ? copies + of.offset : nullptr}(i);
  }
};
static_assert(sizeof(AverageSeveral<float>) <= 4000);

void check_stacked(const StackedParameter& parameter) {
  TESSERA_CHECK(parameter.experts >= 1 && parameter.count >= 0 && parameter.offset >= 0,
                "experts: a stacked parameter of ", parameter.experts, " experts with ", parameter.count,
                " elements each at offset ", parameter.offset);
}

// Of the elements of a block on a card: the sum of squared distances from the mean, and of the mean's square
// times the experts.
template <class T>
struct BlockSpread {
  Averaging<T> of;
  double* sums;  // two a block
  TESSERA_FN void operator()(const Row& row, int64_t block) const {
    const int64_t begin = block * kBlock;
    const int64_t size = begin + kBlock < of.stride ? kBlock : of.stride - begin;
    const double deviation = row.sum(size, [=, this](int64_t j) {
      const T center = of.mean(begin + j);
      double sum = 0;
      for (int64_t e = 0; e < of.experts; ++e) {
        const double distance = double(of.stacked[e * of.stride + begin + j] - center);
        sum += distance * distance;
      }
      return sum;
    });
    const double mean = row.sum(size, [=, this](int64_t j) {
      const double center = double(of.mean(begin + j));
      return double(of.experts) * center * center;
    });
    row.once([=, this] {
      sums[2 * block] = deviation;
      sums[2 * block + 1] = mean;
    });
  }
};

template <class T>
struct SpreadOfSeveral {
  Several several;
  const T* values;
  double* sums;
  TESSERA_FN void operator()(const Row& row, int64_t block) const {
    int64_t own = block;
    const StackedParameter& of = several.find(own, Blocks());
    const Averaging<T> averaging{of.experts, of.count, T(0), const_cast<T*>(values) + of.offset};
    BlockSpread<T>{averaging, sums + 2 * (block - own)}(row, own);
  }
};

// The quotient of all blocks' sums.
struct Deviation {
  int64_t blocks;
  const double* sums;
  double* deviation;
  TESSERA_FN void operator()(const Row& row, int64_t) const {
    const double apart = row.sum(blocks, [=, this](int64_t i) { return sums[2 * i]; });
    const double mean = row.sum(blocks, [=, this](int64_t i) { return sums[2 * i + 1]; });
    row.once([=, this] { *deviation = apart == 0 ? 0 : std::sqrt(apart / mean); });
  }
};

struct Spread {
  double deviation = 0, mean = 0;

  Spread& operator+=(const Spread& other) {
    deviation += other.deviation;
    mean += other.mean;
    return *this;
  }
};

}  // namespace

double ShareRateSchedule::at(int64_t step) const {
  if (kind == Kind::constant || step >= ramp_steps) return rate;
  return rate * double(step) / double(ramp_steps);
}

void check_share_rate(std::span<const StackedParameter> parameters, double share_rate) {
  for (const StackedParameter& parameter : parameters) {
    check_stacked(parameter);
    TESSERA_CHECK_AS(Exit::usage,
                     parameter.experts == 1 || (share_rate >= 0 && share_rate <= full_share(parameter)),
                     "experts averaging: the share rate ", share_rate, " is outside [0, ",
                     full_share(parameter), "], the range for ", parameter.experts, " experts");
  }
}

template <class T>
void average_experts(T* values, std::span<const StackedParameter> parameters, double share_rate) {
  check_share_rate(parameters, share_rate);
  if (share_rate == 0) return;
  for (const StackedParameter& parameter : parameters) {
    if (parameter.experts == 1) continue;
    T* stacked = values + parameter.offset;
    const T keep = T(1 - share_rate / full_share(parameter));
    if (on_card()) {
      elements(parameter.count, Averaging<T>{parameter.experts, parameter.count, keep, stacked});
      continue;
    }
    each_block(parameter.count, [=](int64_t begin, int64_t end) {
      const Row row;
      T mean[kBlock];
      mean_of_rows(stacked + begin, parameter.experts, parameter.count, end - begin, mean);
      for (int64_t e = 0; e < parameter.experts; ++e)
        row.each(end - begin, [&, expert = stacked + e * parameter.count + begin](int64_t j) {
          expert[j] = mean[j] + keep * (expert[j] - mean[j]);
        });
    });
  }
}

template <class T>
void average_at_once(T* values, std::span<const StackedParameter> parameters, const StepNumbers* numbers,
                     bf16* copies) {
  each_several(parameters, Elements(), [&](const Several& several, int64_t count) {
    elements(count, AverageSeveral<T>{several, values, copies, numbers});
  });
}

template <class T>
void average_experts(T* values, std::span<const StackedParameter> parameters, const StepNumbers* numbers,
                     bf16* copies) {
  if (on_card() || copies)
    average_at_once(values, parameters, numbers, copies);
  else
    average_experts(values, parameters, numbers->share_rate);
}

template <class T>
void mean_experts(const T* stacked, int64_t experts, int64_t count, T* out) {
  check_stacked({0, experts, count});
  each_block(count, [=](int64_t begin, int64_t end) {
    mean_of_rows(stacked + begin, experts, count, end - begin, out + begin);
  });
}

template <class T>
void put_deviation(const T* values, std::span<const StackedParameter> parameters, Tensor& sums,
                   double* deviation) {
  int64_t blocks = 0, first = 0;
  for (const StackedParameter& parameter : parameters) blocks += Blocks()(parameter);
  if (!sums) sums = Tensor({blocks, 2}, DType::f64);
  double* const of_blocks = sums.mutable_data<double>();
  each_several(parameters, Blocks(), [&](const Several& several, int64_t count) {
    rows(count, kBlock, SpreadOfSeveral<T>{several, values, of_blocks + 2 * first});
    first += count;
  });
  rows(1, blocks, Deviation{blocks, of_blocks, deviation});
}

template <class T>
double expert_deviation(const T* values, std::span<const StackedParameter> parameters) {
  if (on_card()) {
    Tensor sums, deviation({1}, DType::f64);
    put_deviation(values, parameters, sums, deviation.mutable_data<double>());
    return deviation.at(0);
  }
  Spread total;
  for (const StackedParameter& parameter : parameters) {
    check_stacked(parameter);
    const T* stacked = values + parameter.offset;
    total += block_sum(parameter.count, [=](int64_t begin, int64_t end) {
      const Row row;
      const int64_t n = end - begin;
      T mean[kBlock];
      mean_of_rows(stacked + begin, parameter.experts, parameter.count, n, mean);
      const auto squares = [&](auto term) {
        return row.sum(n, [=](int64_t j) { return double(term(j)) * double(term(j)); });
      };
      Spread spread;
      spread.mean = double(parameter.experts) * squares([&](int64_t j) { return mean[j]; });
      for (int64_t e = 0; e < parameter.experts; ++e) {
        const T* expert = stacked + e * parameter.count + begin;
        spread.deviation += squares([&](int64_t j) { return expert[j] - mean[j]; });
      }
      return spread;
    });
  }
  return total.deviation == 0 ? 0 : std::sqrt(total.deviation / total.mean);
}

template void average_experts(float*, std::span<const StackedParameter>, double);
template void average_experts(double*, std::span<const StackedParameter>, double);
template void average_experts(float*, std::span<const StackedParameter>, const StepNumbers*, bf16*);
template void average_experts(double*, std::span<const StackedParameter>, const StepNumbers*, bf16*);
template void average_at_once(float*, std::span<const StackedParameter>, const StepNumbers*, bf16*);
template void average_at_once(double*, std::span<const StackedParameter>, const StepNumbers*, bf16*);
template void put_deviation(const float*, std::span<const StackedParameter>, Tensor&, double*);
template void put_deviation(const double*, std::span<const StackedParameter>, Tensor&, double*);
template void mean_experts(const float*, int64_t, int64_t, float*);
template void mean_experts(const double*, int64_t, int64_t, double*);
template double expert_deviation(const float*, std::span<const StackedParameter>);
template double expert_deviation(const double*, std::span<const StackedParameter>);

}  // namespace tessera
