#include "optim/sgd.h"

#include "engine/base/check.h"
#include "engine/kernels/rows.h"

namespace tessera {

template <class T>
Sgd<T>::Sgd(const OptimizerConfig& config, int64_t count)
    : Optimizer<T>(count), config_(config), momentum_(size_t(count)) {
  TESSERA_CHECK_AS(Exit::usage, config.momentum >= 0 && config.momentum < 1, "sgd: momentum ",
                   config.momentum, " is outside [0, 1)");
  TESSERA_CHECK_AS(Exit::usage, config.weight_decay >= 0, "sgd: weight_decay ", config.weight_decay,
                   " is below 0");
  TESSERA_CHECK_AS(Exit::usage, !config.nesterov || config.momentum > 0,
                   "sgd: nesterov needs a momentum above 0, and it is ", config.momentum);
}

template <class T>
void Sgd<T>::update(const FlatParameters<T>& parameters, double lr, double gradient_scale) {
  const T scale = T(gradient_scale), momentum = T(config_.momentum);
  // Both forms are one: w <- w - lr (ahead d + along b).
  const T ahead = T(config_.nesterov ? 1 : 0), along = config_.nesterov ? momentum : T(1);

  parameters.each_range([&](int64_t begin, int64_t end, bool decays, double factor) {
    const T rate = T(lr * factor), decay = T(decays ? config_.weight_decay : 0);
    T *w = parameters.values + begin, *b = momentum_.data() + begin;
    const T* gradients = parameters.gradients + begin;
    elements(end - begin, [=](int64_t i) {
      const T d = scale * gradients[i] + decay * w[i];
      b[i] = momentum * b[i] + d;
      w[i] -= rate * (ahead * d + along * b[i]);
    });
  });
}

template class Sgd<float>;
template class Sgd<double>;

}  // namespace tessera
