#include "optim/optimizer.h"

#include "engine/base/check.h"
#include "engine/base/nearest_name.h"
#include "optim/adamw.h"
#include "optim/sgd.h"

namespace tessera {

template <class T>
void Optimizer<T>::step(const FlatParameters<T>& parameters, double lr, double gradient_scale) {
  TESSERA_CHECK(parameters.count == count_, "optimizer: made for ", count_, " parameters, but given ",
                parameters.count);
  TESSERA_CHECK(parameters.decayed >= 0 && parameters.decayed <= count_, "optimizer: ", parameters.decayed,
                " decayed parameters of ", count_);
  TESSERA_CHECK(parameters.rates.empty() || parameters.rates.back().end == count_,
                "optimizer: learning rates for ", parameters.rates.empty() ? 0 : parameters.rates.back().end,
                " of ", count_, " parameters");
  ++steps_;
  update(parameters, lr, gradient_scale);
}

template <class T>
std::unique_ptr<Optimizer<T>> make_optimizer(const OptimizerConfig& config, int64_t count) {
  if (config.name == "adamw") return std::make_unique<AdamW<T>>(config, count);
  if (config.name == "sgd") return std::make_unique<Sgd<T>>(config, count);
  fail(Exit::usage, "optimizer '", config.name, "' is not known; did you mean '",
       nearest_name(config.name, {"adamw", "sgd"}), "'? There are adamw and sgd");
}

template class Optimizer<float>;
template class Optimizer<double>;
template std::unique_ptr<Optimizer<float>> make_optimizer(const OptimizerConfig&, int64_t);
template std::unique_ptr<Optimizer<double>> make_optimizer(const OptimizerConfig&, int64_t);

}  // namespace tessera
