// The router of V-MoE (arXiv 2106.05974), "naive MoE" in the words of EWA (arXiv 2308.06093): each token goes
// through the k experts of its largest gates,
//   y = x + sum over the top k of g_e expert_e(x),   g = softmax(W x + noise) over all experts, not
//   renormalised.
// A token that finds an expert full goes without it. In evaluation there is neither noise nor a limit (V-MoE
// evaluates S/32 with a capacity that nothing can exceed), so that no image depends on its neighbours.
#pragma once

#include "nn/moe/router.h"

namespace tessera {

class TokenRoutedMoe : public FeedForward {
 public:
  TokenRoutedMoe(const Scope& scope, int64_t E, int64_t C, int64_t hidden, WeightInit init,
                 ExpertInit expert_init, const RouterOptions& options, double dropout_rate)
      : router_((scope / "router" / "weight").weight({E, C}, linear_init(init, C, E))),
        experts_(scope, E, C, hidden, init, expert_init, dropout_rate),
        options_(options),
        name_(scope.name()),
        site_(scope.site()) {}

  Tensor forward(const Tensor& x, const Residual& residual, const Pass& pass) const override {
    return forward(x, score(x, router_, options_.noise, pass, site_), residual, pass);
  }
  bool takes_first_tokens(const Pass&) const override { return false; }  // they compete for room
  // The same for scores that are given.
  Tensor forward(const Tensor& x, const Scores& scores, const Residual& residual, const Pass& pass) const {
    return through_experts(experts_, x, route(scores, x.size(0), pass), residual, pass);
  }
  // The experts of the tokens of B samples; adds the balance losses to the pass.
  Routing route(const Scores& scores, int64_t B, const Pass& pass) const;

 private:
  Tensor router_;  // (E,C)
  Experts experts_;
  RouterOptions options_;
  std::string name_;
  uint32_t site_;
};

}  // namespace tessera
