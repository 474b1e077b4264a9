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
  double beta1, beta2, eps, weight_decay;
  const T* gradients;
  T *w, *m, *v;
  // The bias corrections, folded into scalars: the loop is bound by memory.
  TESSERA_FN Update<T> at(const StepNumbers& numbers, bool decays, double factor) const {
    const double rate = numbers.lr * factor;
    return {T(numbers.gradient_scale),
            T(beta1),
            T(beta2),
            T(1 - beta1),
            T(1 - beta2),
            decays ? T(1 - rate * weight_decay) : T(1),
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
  update_parameters(
      parameters,
      Rule<T>{config_.beta1, config_.beta2, config_.eps, config_.weight_decay, parameters.gradients,
              parameters.values, mean_.mutable_data<T>(), square_.mutable_data<T>()},
      numbers);
}

template class AdamW<float>;
template class AdamW<double>;

}  // namespace tessera
