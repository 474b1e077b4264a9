#include "optim/sgd.h"

#include "engine/base/check.h"
#include "engine/kernels/rows.h"

namespace tessera {
namespace {

// Plain momentum and Nesterov's are one: w <- w - lr (ahead d + along b).
template <class T>
struct Update {
  T scale, decay, momentum, rate, ahead, along;
  const T* gradients;
  T *w, *b;
  TESSERA_FN void operator()(int64_t i) const {
    const T d = scale * gradients[i] + decay * w[i];
    b[i] = momentum * b[i] + d;
    w[i] -= rate * (ahead * d + along * b[i]);
  }
};

template <class T>
struct Rule {
  double decay, momentum, factor;
  bool nesterov;
  const T* gradients;
  T *w, *b;
  TESSERA_FN Update<T> at(const StepNumbers& numbers) const {
    return {T(numbers.gradient_scale),
            T(decay),
            T(momentum),
            T(numbers.lr * factor),
            T(nesterov ? 1 : 0),
            nesterov ? T(momentum) : T(1),
            gradients,
            w,
            b};
  }
};

}  // namespace

template <class T>
Sgd<T>::Sgd(const OptimizerConfig& config, int64_t count)
    : Optimizer<T>(count), config_(config), momentum_(Tensor::zeros({count}, dtype_of<T>())) {
  TESSERA_CHECK_AS(Exit::usage, config.momentum >= 0 && config.momentum < 1, "sgd: momentum ",
                   config.momentum, " is outside [0, 1)");
  TESSERA_CHECK_AS(Exit::usage, config.weight_decay >= 0, "sgd: weight_decay ", config.weight_decay,
                   " is below 0");
  TESSERA_CHECK_AS(Exit::usage, !config.nesterov || config.momentum > 0,
                   "sgd: nesterov needs a momentum above 0, and it is ", config.momentum);
}

template <class T>
void Sgd<T>::update(const FlatParameters<T>& parameters, const StepNumbers* numbers) {
  parameters.each_range([&](int64_t begin, int64_t end, bool decays, double factor) {
    update_elements(
        end - begin,
        Rule<T>{decays ? config_.weight_decay : 0, config_.momentum, factor, config_.nesterov,
                parameters.gradients + begin, parameters.values + begin, momentum_.mutable_data<T>() + begin},
        numbers);
  });
}

template class Sgd<float>;
template class Sgd<double>;

}  // namespace tessera
