// Experts weights averaging measured against its theory (arXiv 2308.06093; the algebra is derived from its
// update). A short run of plain SGD at a constant learning rate, for which there is a closed form: with D_i =
// W_i - mean the experts' deviations, g_i their gradients, E experts, share rate b and c = b E / (E - 1),
//   D_i(m) = (1-c)^m D_i(0) - lr sum_{t<m} (1-c)^(m-t) (g_i(t) - mean g(t)),
// while the mean takes no notice of the averaging.
#pragma once

#include <string>
#include <vector>

#include "train/config.h"

namespace tessera {

// One run at one share rate. Lengths are Euclidean, over all experts of all layers together.
struct EwaTrace {
  double share_rate = 0;
  std::vector<double> deviation;  // |D| / |mean| before the first step and after each
  std::vector<double> predicted;  // the same from the closed form, which sees only D(0) and the gradients
  double closed_form_error = 0;   // largest |D - predicted D| / |mean|
  double mean_shift = 0;          // largest change of the mean by an averaging, over the mean's length
  double decay = 0;            // |W after - W before an averaging| / |D before|, the mean over the steps: c
  std::vector<double> memory;  // of the step k before the last: length of its term in the sum above
  double mixture_top1 = 0, fused_top1 = 0;  // on the test images, after the last step
};

// `steps` steps for each share rate, all from the same weights with the same batches. `config` gives model,
// data, optim.lr, batch and seed; the rest of its recipe does not apply. A model without experts is
// Error(Exit::usage).
std::vector<EwaTrace> study_ewa(const RunConfig& config, const std::vector<double>& share_rates,
                                int64_t steps);

}  // namespace tessera
