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
void AdamW<T>::update(const FlatParameters<T>& parameters, double lr, double gradient_scale) {
  const double t = double(this->steps());
  // The bias corrections, folded into scalars: the loop is bound by memory.
  const double correction = 1 / (1 - std::pow(config_.beta1, t));
  const T root_scale = T(1 / std::sqrt(1 - std::pow(config_.beta2, t)));
  const T beta1 = T(config_.beta1), beta2 = T(config_.beta2), eps = T(config_.eps);
  const T fresh1 = T(1 - config_.beta1), fresh2 = T(1 - config_.beta2), scale = T(gradient_scale);

  parameters.each_range([&](int64_t begin, int64_t end, bool decays, double factor) {
    const double rate = lr * factor;
    const T step_size = T(rate * correction), keep = T(decays ? 1 - rate * config_.weight_decay : 1);
    elements(end - begin, Update<T>{scale, beta1, beta2, fresh1, fresh2, keep, step_size, root_scale, eps,
                                    parameters.gradients + begin, parameters.values + begin,
                                    mean_.mutable_data<T>() + begin, square_.mutable_data<T>() + begin});
  });
}

template class AdamW<float>;
template class AdamW<double>;

}  // namespace tessera
