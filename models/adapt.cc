#include "models/adapt.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/io/printable.h"
#include "models/fuse.h"

namespace tessera {
namespace {

bool equal_but_for(int axis, const Shape& a, const Shape& b) {
  if (a.rank() != b.rank()) return false;
  for (int i = 0; i < a.rank(); ++i)
    if (i != axis && a[i] != b[i]) return false;
  return true;
}

// The side of the square grid behind the prefix tokens, or nothing.
std::optional<int64_t> grid_of(const Shape& pos_embed, int64_t prefix) {
  const int64_t patches = pos_embed[1] - prefix, grid = std::llround(std::sqrt(double(patches)));
  if (grid < 1 || grid * grid != patches) return std::nullopt;
  return grid;
}

// Keys' cubic convolution kernel with a = -1/2 (Keys, 1981).
double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// Weights(S,G) of G points in each of S: the kernel around its place, as wide as a step where that is more
// than 1.
std::vector<double> cubic_weights(int64_t G, int64_t S) {
  std::vector<double> weights(size_t(S * G), 0.0);
  const double step = double(G) / double(S), width = std::max(step, 1.0);
  for (int64_t i = 0; i < S; ++i) {
    double* const row = weights.data() + i * G;
    double sum = 0;
    for (int64_t j = 0; j < G; ++j)
      sum += row[j] = cubic((double(j) + 0.5 - (double(i) + 0.5) * step) / width);
    for (int64_t j = 0; j < G; ++j) row[j] /= sum;
  }
  return weights;
}

// pos_embed(1,prefix+G*G,D) for S*S patches; the prefix tokens' stay.
std::vector<float> resample_positions(std::span<const float> from, int64_t prefix, int64_t G, int64_t S,
                                      int64_t D) {
  std::vector<float> to(from.begin(), from.begin() + prefix * D);
  const std::vector<float> grid = resample_grid(from.subspan(size_t(prefix * D)), G, S, D);
  to.insert(to.end(), grid.begin(), grid.end());
  return to;
}

// Kernels(D,C,P,P) for `channels` in place of C.
std::vector<float> adapt_channels(std::span<const float> from, const Shape& shape, int64_t channels) {
  const int64_t D = shape[0], C = shape[1], area = shape[2] * shape[3];
  std::vector<float> to(size_t(D * channels * area), 0.0f);
  for (int64_t d = 0; d < D; ++d)
    for (int64_t c = 0; c < std::max(C, channels); ++c)
      for (int64_t p = 0; p < area; ++p) {
        const float value = from[size_t((d * C + c % C) * area + p)];
        if (channels == 1)
          to[size_t(d * area + p)] += value;
        else if (c < channels)
          to[size_t((d * channels + c) * area + p)] = value * float(C) / float(channels);
      }
  return to;
}

bool is_router(const std::string& name) { return name.ends_with("router.weight"); }

// Whether it is a weight of experts, which a dense model has once, under dense_name().
bool is_of_experts(const std::string& name) {
  return name.find(".moe.") != std::string::npos && !is_router(name);
}

struct Change {
  std::vector<float> values;  // none: the parameter keeps its own
  std::string line;
};

// What becomes of a parameter whose shape in the file is another one; nothing where there is no way.
std::optional<Change> adapt(const std::string& name, std::span<const float> from, const Shape& shape,
                            const Shape& wanted, int64_t patches) {
  const auto line = [&](const std::string& what) {
    return text(name, ": ", shape, " in the file, ", wanted, " here: ", what);
  };
  if ((name.starts_with("head") || name.starts_with("cls_head_finetune.8.")) &&
      equal_but_for(0, shape, wanted))
    return Change{{}, line("drawn anew")};
  if (name == "patch_embed.proj.weight" && equal_but_for(1, shape, wanted))
    return Change{adapt_channels(from, shape, wanted[1]),
                  line(wanted[1] == 1 ? "the channels' sum" : "the channels repeated and scaled")};
  if (name.ends_with("pos_embed") && shape.rank() == 3 && equal_but_for(1, shape, wanted)) {
    const int64_t prefix = wanted[1] - patches;
    const auto G = grid_of(shape, prefix), S = grid_of(wanted, prefix);
    if (G && S)
      return Change{resample_positions(from, prefix, *G, *S, shape[2]),
                    line(text("resampled from ", *G, " x ", *G, " to ", *S, " x ", *S, " patches"))};
  }
  return std::nullopt;
}

}  // namespace

std::vector<float> resample_grid(std::span<const float> grid, int64_t G, int64_t S, int64_t D) {
  const std::vector<double> weights = cubic_weights(G, S);
  std::vector<double> rows(size_t(S * G * D), 0.0);  // (S,G,D)
  for (int64_t y = 0; y < S; ++y)
    for (int64_t v = 0; v < G; ++v)
      for (int64_t i = 0; i < G * D; ++i)
        rows[size_t(y * G * D + i)] += weights[size_t(y * G + v)] * double(grid[size_t(v * G * D + i)]);
  std::vector<float> out;
  out.reserve(size_t(S * S * D));
  for (int64_t y = 0; y < S; ++y)
    for (int64_t x = 0; x < S; ++x)
      for (int64_t d = 0; d < D; ++d) {
        double sum = 0;
        for (int64_t u = 0; u < G; ++u) sum += weights[size_t(x * G + u)] * rows[size_t((y * G + u) * D + d)];
        out.push_back(float(sum));
      }
  return out;
}

std::vector<std::string> start_from(Model& model, const SafetensorsFile& file) {
  auto names = plain_names(file);
  for (const auto& [name, entry] : names)
    TESSERA_CHECK_AS(Exit::file, name.find(".moe.") == std::string::npos, file.name(),
                     ": holds a mixture of experts (", printable(name), "); fuse it first: tessera fuse ",
                     file.name(), " -o dense.safetensors");
  struct Copy {
    Tensor to;
    std::vector<float> values;
    int64_t times;
  };
  std::vector<Copy> copies;
  std::vector<std::string> changes;
  std::string problems;
  int64_t upcycled = 0;
  const int64_t grid = model.config().image_size / model.config().patch;
  for (const auto& p : model.parameters().parameters()) {
    const Shape& own = p.value.shape();
    if (is_router(p.name)) {
      changes.push_back(text(p.name, ": ", own, ", which no dense model has: drawn anew"));
      continue;
    }
    const int64_t experts = is_of_experts(p.name) ? own[0] : 1;
    const std::string name = experts > 1 ? dense_name(p.name) : p.name;
    const Shape wanted = experts > 1 ? Shape(own.begin() + 1, own.end()) : own;
    const auto found = names.find(name);
    if (found == names.end()) {
      problems += text("\n  missing: ", name, wanted);
      continue;
    }
    const TensorEntry& entry = *found->second;
    names.erase(found);
    const Shape shape = shape_of(entry);
    std::vector<float> values(size_t(entry.count()));
    file.read_f32(entry, values);
    if (shape == wanted) {
      copies.push_back({p.value, std::move(values), experts});
      upcycled += experts > 1;
    } else if (auto change = adapt(name, values, shape, wanted, grid * grid)) {
      changes.push_back(change->line);
      if (!change->values.empty()) copies.push_back({p.value, std::move(change->values), 1});
    } else {
      problems += text("\n  ", name, ": ", shape, " in the file, ", wanted, " in the model");
    }
  }
  for (const auto& [name, entry] : names)
    problems += text("\n  not of this model: ", printable(name), shape_of(*entry));
  TESSERA_CHECK_AS(Exit::file, problems.empty(), "the weights in ", file.name(), " cannot start the model ",
                   model.config().name, ":", problems);

  for (Copy& copy : copies)
    for_float("start_from", copy.to.dtype(), [&]<class T>() {
      T* to = copy.to.mutable_data<T>();
      for (int64_t e = 0; e < copy.times; ++e) to = std::copy(copy.values.begin(), copy.values.end(), to);
    });
  if (upcycled > 0)
    changes.push_back(text("FFNs: copied into the ", model.config().moe.experts, " experts of blocks ",
                           model.config().moe.blocks));
  return changes;
}

}  // namespace tessera
