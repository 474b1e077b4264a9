// Programs that batch_norm over pixels and over rows share: a channel's numbers from its sums.
#pragma once

#include <cmath>

#include "engine/base/portable.h"
#include "engine/tensor/tensor.h"

namespace tessera {

// Of n values a channel: the mean from their sum, then, from the sum of squared distances from it, rstd and
// the running statistics.
template <class T>
struct DivideSums {
  T n;
  T* mean;
  TESSERA_FN void operator()(int64_t c) const { mean[c] /= n; }
};

template <class T>
struct SettleStatistics {
  T n, eps, momentum;
  const T *mean, *squares;
  T *rstd, *running_mean, *running_var;
  TESSERA_FN void operator()(int64_t c) const {
    rstd[c] = T(1) / std::sqrt(squares[c] / n + eps);
    running_mean[c] += momentum * (mean[c] - running_mean[c]);
    running_var[c] += momentum * (squares[c] / (n - 1) - running_var[c]);
  }
};

// The running statistics in place of the batch's; a copy, since they may move on before backward.
template <class T>
struct TakeRunning {
  T eps;
  const T *running_mean, *running_var;
  T *mean, *rstd;
  TESSERA_FN void operator()(int64_t c) const {
    mean[c] = running_mean[c];
    rstd[c] = T(1) / std::sqrt(running_var[c] + eps);
  }
};

}  // namespace tessera
