#include "optim/step_numbers.h"

#include "engine/ops/points.h"
#include "optim/clip.h"

namespace tessera {
namespace {

struct PutLoss {
  const float* loss;
  double share;
  bool adds;
  double* sum;
  TESSERA_FN void operator()(int64_t) const { *sum = (adds ? *sum : 0) + share * double(*loss); }
};

struct Hits {
  int64_t K;
  const float* logits;
  const int32_t* labels;
  float* hits;
  TESSERA_FN void operator()(const Row& row, int64_t b) const {
    const int64_t first = first_largest(row, K, [=, this](int64_t k) { return logits[b * K + k]; });
    row.once([=, this] { hits[b] = first == labels[b]; });
  }
};

struct CountHits {
  int64_t B;
  const float* hits;
  bool adds;
  double* count;
  TESSERA_FN void operator()(const Row& row, int64_t) const {
    const double sum = row.sum(B, [=, this](int64_t b) { return double(hits[b]); });
    row.once([=, this] { *count = (adds ? *count : 0) + sum; });
  }
};

struct Judge {
  int64_t passes;
  double max_norm;
  StepFindings* found;
  StepNumbers* numbers;
  TESSERA_FN void operator()(int64_t) const {
    int64_t shown = 0;
    while (shown < passes && found[shown].finite()) ++shown;
    if (shown == passes) {
      found->gradient_norm = found[passes - 1].gradient_norm;
    } else {
      const StepFindings& bad = found[shown];
      found->loss = bad.loss;
      found->auxiliary = bad.auxiliary;
      found->correct = bad.correct;
      found->gradient_norm = bad.gradient_norm;
      found->stopped = 1;
    }
    numbers->stopped = found->stopped;
    numbers->gradient_scale = bounding_factor(found->gradient_norm, max_norm);
  }
};

}  // namespace

void put_loss(const Tensor& loss, double share, bool adds, double* sum) {
  elements(1, PutLoss{loss.data<float>(), share, adds, sum});
}

void put_correct(const Tensor& logits, const Tensor& labels, bool adds, double* count) {
  const int64_t B = logits.size(0), K = logits.size(1);
  Tensor hits({B}, DType::f32);
  rows(B, K, Hits{K, logits.data<float>(), labels.data<int32_t>(), hits.mutable_data<float>()});
  rows(1, B, CountHits{B, hits.data<float>(), adds, count});
}

void judge(int64_t passes, double max_norm, StepFindings* found, StepNumbers* numbers) {
  elements(1, Judge{passes, max_norm, found, numbers});
}

}  // namespace tessera
