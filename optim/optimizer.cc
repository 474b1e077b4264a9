#include "optim/optimizer.h"

#include "engine/base/check.h"
#include "engine/base/nearest_name.h"
#include "optim/adamw.h"
#include "optim/sgd.h"

namespace tessera {
namespace {

template <class T>
void check(const FlatParameters<T>& parameters, int64_t count) {
  TESSERA_CHECK(parameters.count == count, "optimizer: made for ", count, " parameters, but given ",
                parameters.count);
  TESSERA_CHECK(parameters.decayed >= 0 && parameters.decayed <= count, "optimizer: ", parameters.decayed,
                " decayed parameters of ", count);
  TESSERA_CHECK(parameters.rates.empty() || parameters.rates.back().end == count,
                "optimizer: learning rates for ", parameters.rates.empty() ? 0 : parameters.rates.back().end,
                " of ", count, " parameters");
}

}  // namespace

template <class T>
void Optimizer<T>::step(const FlatParameters<T>& parameters, double lr, double gradient_scale) {
  check(parameters, count_);  // a step that is refused does not count
  StepNumbers numbers{.lr = lr, .gradient_scale = gradient_scale};
  prepare(numbers);
  if (!on_card()) return step(parameters, &numbers);
  Tensor there({int64_t(sizeof numbers)}, DType::u8);
  there.assign(std::span(reinterpret_cast<const uint8_t*>(&numbers), sizeof numbers));
  step(parameters, reinterpret_cast<const StepNumbers*>(there.data<uint8_t>()));
}

template <class T>
void Optimizer<T>::prepare(StepNumbers& numbers) {
  ++steps_;
  correct(numbers);
}

template <class T>
void Optimizer<T>::step(const FlatParameters<T>& parameters, const StepNumbers* numbers) {
  check(parameters, count_);
  update(parameters, numbers);
}

template <class T>
std::unique_ptr<Optimizer<T>> make_optimizer(const OptimizerConfig& config, int64_t count) {
  if (config.name == "adamw") return std::make_unique<AdamW<T>>(config, count);
  if (config.name == "sgd") return std::make_unique<Sgd<T>>(config, count);
  fail(Exit::usage, "optimizer '", config.name, "' is not known; did you mean '",
       nearest_name(config.name, {"adamw", "sgd"}),
       "'? There are adamw and sgd; optim.sam_rho puts SAM around either");
}

template class Optimizer<float>;
template class Optimizer<double>;
template std::unique_ptr<Optimizer<float>> make_optimizer(const OptimizerConfig&, int64_t);
template std::unique_ptr<Optimizer<double>> make_optimizer(const OptimizerConfig&, int64_t);

}  // namespace tessera
