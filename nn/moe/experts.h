// E feed-forward networks of one shape with their weights stacked: averaging is a loop over the leading axis,
// and collapsing is its mean. Experts that are no copies of one network are not `averaged`.
#pragma once

#include <span>

#include "nn/layers.h"

namespace tessera {

// Whether all experts start from one draw or each from its own.
enum class ExpertInit { alike, independent };

struct Experts {
  Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;  // (E,O,C), (E,O), (E,C,O), (E,C) with O hidden units
  Dropout dropout;

  Experts(const Scope& scope, int64_t E, int64_t C, int64_t hidden, WeightInit init, ExpertInit expert_init,
          double dropout_rate, bool averaged = true)
      : dropout(scope, dropout_rate) {
    const int64_t copies = averaged ? E : 1;
    const auto stacked = [&](const Scope& s, int64_t out, int64_t in) {
      Init first = linear_init(init, in, out);
      if (expert_init == ExpertInit::alike) first.alike = E;
      return s.weight({E, out, in}, first, true, copies);
    };
    fc1_weight = stacked(scope / "fc1" / "weight", hidden, C);
    fc1_bias = (scope / "fc1" / "bias").bias({E, hidden}, copies);
    fc2_weight = stacked(scope / "fc2" / "weight", C, hidden);
    fc2_bias = (scope / "fc2" / "bias").bias({E, C}, copies);
  }

  // x(R,C), rows of B samples of N rows in the experts' order: offsets[e] to offsets[e+1] belong to expert e.
  // A row that goes through k experts counts k times. `order` brings a tensor of all B N rows into that
  // order.
  template <class Order>
  Tensor forward(const Tensor& x, std::span<const int64_t> offsets, int64_t B, int64_t N, const Pass& pass,
                 Order order) const {
    Tensor hidden = grouped_linear_gelu(x, fc1_weight, fc1_bias, offsets);
    if (pass.training && dropout.rate > 0) {
      // The mask is drawn by the rows' places in the batch and then ordered as they are.
      const int64_t O = hidden.size(1);
      const Tensor mask = dropout.forward(Tensor::full({B, N, O}, 1, wide(x.dtype())), pass);
      hidden = mul(widen(hidden), order(mask.reshape({B * N, O})));
    }
    return grouped_linear(hidden, fc2_weight, fc2_bias, offsets);
  }
};

}  // namespace tessera
