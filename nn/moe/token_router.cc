#include "nn/moe/token_router.h"

namespace tessera {

Routing TokenRoutedMoe::route(const Scores& scores, int64_t B, const Pass& pass) const {
  const int64_t M = scores.logits.size(0), E = scores.logits.size(1), N = M / B;
  const Tensor gates = softmax(scores.noisy);
  const Tensor chosen = top_k(gates, options_.k);
  Capacity capacity;
  if (pass.training) {
    check_groups("token router", B, options_, pass);
    capacity = {options_.group * N, options_.capacity};
    if (options_.batch_priority)
      capacity.priority = slice(pick(gates.detach(), chosen), 1, 0, 1).reshape({M});
    pass.add_loss(balance_loss(scores, chosen, options_, options_.group * N));
  }
  Routing routing = place(chosen, E, capacity);
  routing.gates = pick(gates, chosen);
  pass.note(name_ + ".load", routing.load());
  pass.note(name_ + ".dropped", {1 - double(routing.offsets.back()) / double(M * options_.k)});
  return routing;
}

}  // namespace tessera
