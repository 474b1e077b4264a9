// softmax_cross_entropy: mean over B of -sum_k q_k log p_k, p = softmax(logits); dlogits = (p sum(q) - q) /
// B.
#include "engine/base/vec_math.h"
#include "engine/kernels/rows.h"
#include "engine/ops/cases.h"
#include "engine/ops/elementary.h"
#include "engine/ops/ops.h"

namespace tessera {
namespace {

// q of every sample: smoothed one-hot labels, or smoothed soft targets.
template <class T>
struct SoftTargets {
  T keep, rest;
  const T* soft;
  T* q;
  TESSERA_FN void operator()(int64_t i) const { q[i] = keep * soft[i] + rest; }
};

template <class T>
struct LabelTargets {
  int64_t K;
  T keep, rest;
  const int32_t* labels;
  T* q;
  TESSERA_FN void operator()(const Row& row, int64_t b) const {
    row.each(K, [=, this](int64_t k) { q[b * K + k] = k == labels[b] ? rest + keep : rest; });
  }
};

template <class T>
void fill_targets(const Tensor& targets, double smoothing, int64_t B, int64_t K, T* q) {
  const T keep = T(1 - smoothing), rest = T(smoothing / double(K));
  if (targets.dtype() != DType::i32) return elements(B * K, SoftTargets<T>{keep, rest, targets.data<T>(), q});
  const int32_t* labels = targets.data<int32_t>();
  for (int64_t b = 0; b < B && !on_card(); ++b)  // whoever brings labels to a card has looked at them
    TESSERA_CHECK_AS(Exit::data, labels[b] >= 0 && labels[b] < K, "softmax_cross_entropy: label ", labels[b],
                     " of sample ", b, " is not in [0,", K, "); does the model have the data set's classes?");
  rows(B, K, LabelTargets<T>{K, keep, rest, labels, q});
}

// Turns q into dlogits in place, and gives the sample's loss.
template <class T>
struct LossAndSlope {
  int64_t K;
  const T* logits;
  T* q;
  T* loss;
  TESSERA_FN void operator()(const Row& row, int64_t b) const {
    const T* in = logits + b * K;
    T* target = q + b * K;
    const T largest = row.max(K, [=](int64_t k) { return in[k]; });
    const T total = row.sum(K, [=](int64_t k) { return vexp(in[k] - largest); });
    const T log_total = largest + std::log(total);
    const T mass = row.sum(K, [=](int64_t k) { return target[k]; });
    const T own = row.sum(K, [=](int64_t k) { return target[k] * (log_total - in[k]); });
    row.once([=, this] { loss[b] = own; });
    row.each(K, [=](int64_t k) { target[k] = mass * vexp(in[k] - log_total) - target[k]; });
  }
};

// The mean of all losses, as one row.
template <class T>
struct MeanLoss {
  int64_t B;
  const T* losses;
  T* mean;
  TESSERA_FN void operator()(const Row& row, int64_t) const {
    const T total = row.sum(B, [=, this](int64_t b) { return losses[b]; });
    row.once([=, this] { *mean = total / T(B); });
  }
};

template <class T>
struct Backward {
  T share;  // 1 / B
  const T *dloss, *slope;
  GradTarget<T> dlogits;
  TESSERA_FN void operator()(int64_t i) const { dlogits.put(i, *dloss * share * slope[i]); }
};

}  // namespace

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& targets, double smoothing) {
  Dims dim("softmax_cross_entropy");
  dim(logits, "logits(B,K)")(targets, targets.dtype() == DType::i32 ? "labels(B)" : "targets(B,K)");
  TESSERA_CHECK(smoothing >= 0 && smoothing < 1, "softmax_cross_entropy: smoothing ", smoothing,
                " is not in [0,1)");
  refuse_gradient("softmax_cross_entropy (targets)", {targets});
  const int64_t B = dim['B'], K = dim['K'];
  TESSERA_CHECK(B > 0, "softmax_cross_entropy: an empty batch has no mean loss");
  Tensor mean_loss({}, logits.dtype()), slope(logits.shape(), logits.dtype()), losses({B}, logits.dtype());
  for_float("softmax_cross_entropy", logits.dtype(), [&]<class T>() {
    T* q = slope.mutable_data<T>();
    T* loss = losses.mutable_data<T>();
    fill_targets(targets, smoothing, B, K, q);
    rows(B, K, LossAndSlope<T>{K, logits.data<T>(), q, loss});
    rows(1, B, MeanLoss<T>{B, loss, mean_loss.mutable_data<T>()});
  });
  record("softmax_cross_entropy", {logits}, mean_loss,
         [B, K, slope, gx = logits.gradient()](const Gradient& gy) {
           for_float("softmax_cross_entropy", slope.dtype(), [&]<class T>() {
             elements(B * K, Backward<T>{T(1) / T(B), gy.read<T>(), slope.data<T>(), gx.target<T>()});
           });
         });
  return mean_loss;
}

namespace {

Tensor labels_of(const Tensor& logits) {
  std::vector<int32_t> labels(size_t(logits.size(0)));
  for (size_t b = 0; b < labels.size(); ++b) labels[b] = int32_t((b * 7 + 2) % size_t(logits.size(1)));
  return Tensor::of({logits.size(0)}, labels);
}

Tensor composed(const Tensor& logits, const Tensor& q) {
  const double K = double(logits.size(1));
  const Tensor log_total = log(scale(mean(exp(logits), 1), K)).reshape({logits.size(0), 1});
  return scale(mean(mul(q, subtract(logits, log_total))), -K);
}

Tensor smoothed(const Tensor& q, double smoothing) {
  return add(scale(q, 1 - smoothing), Tensor::full({1}, smoothing / double(q.size(1)), q.dtype()));
}

Tensor composed_labels(const Inputs& in) {
  const Tensor labels = labels_of(in[0]);
  Tensor onehot = Tensor::zeros(in[0].shape(), in[0].dtype());
  for_float("onehot", onehot.dtype(), [&]<class T>() {
    for (int64_t b = 0; b < labels.count(); ++b)
      onehot.mutable_data<T>()[b * onehot.size(1) + labels.data<int32_t>()[b]] = T(1);
  });
  return composed(in[0], smoothed(onehot, 0.1));
}

TESSERA_CASES(OpCase{"softmax_cross_entropy",
                     {"4x7", "1x1", "65537x3"},
                     [](const Inputs& in) { return softmax_cross_entropy(in[0], labels_of(in[0]), 0.1); },
                     composed_labels});
TESSERA_CASES(OpCase{"softmax_cross_entropy(soft)",
                     {"4x7 4x7", "1x2 1x2"},
                     [](const Inputs& in) { return softmax_cross_entropy(in[0], in[1].detach(), 0.2); },
                     [](const Inputs& in) { return composed(in[0], smoothed(in[1].detach(), 0.2)); }});

}  // namespace
}  // namespace tessera
