#include "train/diversity.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

// Of the tokens t(n,C). The sum over pairs is |sum of all t_i / |t_i||^2 less the n pairs of a token with
// itself.
template <class T>
double similarity_of_image(const T* tokens, int64_t n, int64_t C) {
  std::vector<double> sum(static_cast<size_t>(C));
  for (int64_t i = 0; i < n; ++i) {
    const T* const token = tokens + i * C;
    double squares = 0;
    for (int64_t c = 0; c < C; ++c) squares += double(token[c]) * double(token[c]);
    const double inverse = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (int64_t c = 0; c < C; ++c) sum[size_t(c)] += inverse * double(token[c]);
  }
  double total = 0;
  for (const double s : sum) total += s * s;
  return (total - double(n)) / (double(n) * double(n - 1));
}

}  // namespace

double token_similarity(const Tensor& x) {
  Dims dim("token_similarity");
  dim(x, "x(B,N,C)");
  const int64_t B = dim['B'], N = dim['N'], C = dim['C'];
  const int64_t grid = int64_t(std::sqrt(double(N))), patches = grid * grid;
  TESSERA_CHECK(patches > 1, "token_similarity: x", x.shape(), " has no two patch tokens");
  double total = 0;
  for_float("token_similarity", x.dtype(), [&]<class T>() {
    for (int64_t b = 0; b < B; ++b)
      total += similarity_of_image(x.data<T>() + (b * N + N - patches) * C, patches, C);
  });
  return total / double(B);
}

std::vector<LayerSimilarity> token_similarities(const Model& model, const Dataset& data,
                                                const Normalization& normalization, int64_t limit) {
  constexpr int64_t kBatch = 32;
  TESSERA_CHECK_AS(Exit::usage, !model.config().is_of_points(),
                   "study diversity: a model of point clouds has no patch tokens");
  const int64_t images = limit > 0 ? std::min(limit, data.count()) : data.count();
  Loader loader(data, {.training = false,
                       .batch_size = std::min(kBatch, images),
                       .prepare = {.shape = model.input_shape(), .normalization = normalization},
                       .limit = limit});
  std::vector<LayerSimilarity> layers;
  for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
    const Batch& batch = loader.next();
    Shape shape{batch.size()};
    for (const int64_t size : model.input_shape()) shape.push_back(size);
    Tensor input(shape, DType::f32);
    std::copy_n(batch.inputs.data(), input.count(), input.mutable_data<float>());
    size_t place = 0;
    Pass pass{.batch = batch.size()};
    pass.watch = [&](const std::string& module, const Tensor& output) {
      if (output.rank() != 3 || output.size(1) < 4 ||
          !(module == "patch_embed" || module == "tokens_to_token" || module.ends_with(".mlp") ||
            module.ends_with(".moe")))
        return;
      if (step == 0) layers.push_back({module.substr(0, module.rfind('.'))});
      layers[place++].similarity += token_similarity(output) * double(batch.size()) / double(images);
    };
    model.forward(input, pass);
  }
  TESSERA_CHECK_AS(Exit::usage, !layers.empty(), "study diversity: a model of architecture ",
                   model.config().architecture, " has no patch tokens");
  return layers;
}

}  // namespace tessera
