#include "optim/adamw.h"

#include <cmath>

#include "engine/base/check.h"
#include "engine/kernels/rows.h"

namespace tessera {
namespace {

template <class T>
struct Update {
  T scale, beta1, beta2, fresh1, fresh2, keep, step_size, root_scale, eps;
  const T* gradients;
  T *w, *m, *v;
  TESSERA_FN void operator()(int64_t i) const {
    const T g = scale * gradients[i];
    m[i] = beta1 * m[i] + fresh1 * g;
    v[i] = beta2 * v[i] + fresh2 * (g * g);
    w[i] = keep * w[i] - step_size * m[i] / (std::sqrt(v[i]) * root_scale + eps);
  }
};

template <class T>
struct Rule {
  double beta1, beta2, eps, factor, weight_decay;
  const T* gradients;
  T *w, *m, *v;
  // The bias corrections, folded into scalars: the loop is bound by memory.
  TESSERA_FN Update<T> at(const StepNumbers& numbers) const {
    const double rate = numbers.lr * factor;
    return {T(numbers.gradient_scale),
            T(beta1),
            T(beta2),
            T(1 - beta1),
            T(1 - beta2),
            T(1 - rate * weight_decay),
            T(rate * numbers.mean_correction),
            T(numbers.square_correction),
            T(eps),
            gradients,
            w,
            m,
            v};
  }
};

}  // namespace

template <class T>
AdamW<T>::AdamW(const OptimizerConfig& config, int64_t count)
    : Optimizer<T>(count),
      config_(config),
      mean_(Tensor::zeros({count}, dtype_of<T>())),
      square_(Tensor::zeros({count}, dtype_of<T>())) {
  TESSERA_CHECK_AS(Exit::usage, config.beta1 >= 0 && config.beta1 < 1, "adamw: beta1 ", config.beta1,
                   " is outside [0, 1)");
  TESSERA_CHECK_AS(Exit::usage, config.beta2 >= 0 && config.beta2 < 1, "adamw: beta2 ", config.beta2,
                   " is outside [0, 1)");
  TESSERA_CHECK_AS(Exit::usage, config.eps >= 0, "adamw: eps ", config.eps, " is below 0");
  TESSERA_CHECK_AS(Exit::usage, config.weight_decay >= 0, "adamw: weight_decay ", config.weight_decay,
                   " is below 0");
}

template <class T>
void AdamW<T>::correct(StepNumbers& numbers) const {
  const double t = double(this->steps());
  numbers.mean_correction = 1 / (1 - std::pow(config_.beta1, t));
  numbers.square_correction = 1 / std::sqrt(1 - std::pow(config_.beta2, t));
}

template <class T>
void AdamW<T>::update(const FlatParameters<T>& parameters, const StepNumbers* numbers) {
  parameters.each_range([&](int64_t begin, int64_t end, bool decays, double factor) {
    update_elements(
        end - begin,
        Rule<T>{config_.beta1, config_.beta2, config_.eps, factor, decays ? config_.weight_decay : 0,
                parameters.gradients + begin, parameters.values + begin, mean_.mutable_data<T>() + begin,
                square_.mutable_data<T>() + begin},
        numbers);
  });
}

template class AdamW<float>;
template class AdamW<double>;

}  // namespace tessera
