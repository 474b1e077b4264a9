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
  double decay, momentum;
  bool nesterov;
  const T* gradients;
  T *w, *b;
  TESSERA_FN Update<T> at(const StepNumbers& numbers, bool decays, double factor) const {
    return {T(numbers.gradient_scale),
            decays ? T(decay) : T(0),
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
  update_parameters(parameters,
                    Rule<T>{config_.weight_decay, config_.momentum, config_.nesterov, parameters.gradients,
                            parameters.values, momentum_.mutable_data<T>()},
                    numbers);
}

template class Sgd<float>;
template class Sgd<double>;

}  // namespace tessera
