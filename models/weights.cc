#include "models/weights.h"

#include "engine/io/printable.h"
#include "models/flops.h"

#include <algorithm>
#include <cmath>

namespace tessera {

std::map<std::string, const TensorEntry*> plain_names(const SafetensorsFile& file) {
  std::map<std::string, const TensorEntry*> names;
  for (const TensorEntry& entry : file.entries()) {
    if (entry.name.starts_with(kOptimizerPrefix)) continue;
    // torch counts a batch norm's steps there; nothing depends on it as long as its momentum is constant.
    if (entry.name.ends_with(".num_batches_tracked")) continue;
    std::string name = entry.name;
    for (bool again = true; again;) {
      again = false;
      for (const std::string_view prefix : {"module.", "_orig_mod."})
        if (name.starts_with(prefix)) {
          name.erase(0, prefix.size());
          again = true;
        }
    }
    TESSERA_CHECK_AS(Exit::file, names.emplace(name, &entry).second, file.name(), ": two tensors are named ",
                     printable(name));
  }
  return names;
}

Shape shape_of(const TensorEntry& entry) {
  TESSERA_CHECK_AS(Exit::file, entry.shape.size() <= size_t(Shape::kMaxRank), "tensor ",
                   printable(entry.name), " has ", entry.shape.size(), " axes; at most ", Shape::kMaxRank,
                   " are supported");
  return Shape(entry.shape.begin(), entry.shape.end());
}

void add_tensor(SafetensorsWriter& writer, const std::string& name, const Tensor& tensor) {
  const Device::Scope host{Device()};
  const auto owner = std::make_shared<Tensor>(tensor.device().is_cuda() ? tensor.to(Device()) : tensor);
  for_float("add_tensor", tensor.dtype(), [&]<class T>() {
    writer.add(name, std::is_same_v<T, float> ? FileDtype::f32 : FileDtype::f64,
               {tensor.shape().begin(), tensor.shape().end()}, owner->data<T>(), owner);
  });
}

void add_parameters(SafetensorsWriter& writer, const Model& model) {
  for (const auto& p : model.parameters().parameters()) add_tensor(writer, p.name, p.value);
  writer.metadata()[kModelKey] = config_to_text(model.config());
  writer.metadata()["tessera.version"] = TESSERA_VERSION;
}

void save_model(const std::string& path, const Model& model, const Metadata& metadata) {
  SafetensorsWriter writer;
  for (const auto& [key, value] : metadata) writer.metadata()[key] = value;
  add_parameters(writer, model);
  writer.write(path);
}

ModelConfig model_config_of(const SafetensorsFile& file) {
  ModelConfig c;
  if (const auto found = file.metadata().find(kModelKey); found != file.metadata().end()) {
    try {
      fields_from_json(fields(c), found->second);
      validate(c);
    } catch (const Error& error) {
      fail(Exit::file, file.name(), ": metadata ", kModelKey, ": ", error.what());
    }
    return c;
  }
  const auto names = plain_names(file);
  const auto shape = [&](const std::string& name, int rank) {
    const auto found = names.find(name);
    TESSERA_CHECK_AS(Exit::file, found != names.end(), file.name(), ": holds no tensor ", name,
                     "; it is neither a file of tessera nor a ViT or DeiT of timm");
    const Shape s = shape_of(*found->second);
    TESSERA_CHECK_AS(Exit::file, s.rank() == rank && s.count() > 0, file.name(), ": ", name, s,
                     " should have ", rank, " axes, none of them empty");
    return s;
  };
  const Shape proj = shape("patch_embed.proj.weight", 4);
  c.name = "timm_vit";
  c.dim = proj[0];
  c.channels = proj[1];
  c.patch = proj[2];
  c.classes = shape("head.weight", 2)[0];
  c.distilled = names.count("dist_token") > 0;
  const int64_t grid = int64_t(std::llround(std::sqrt(double(shape("pos_embed", 3)[1] - c.prefix_tokens()))));
  c.image_size = grid * c.patch;
  for (c.depth = 0; names.count("blocks." + std::to_string(c.depth) + ".norm1.weight");) ++c.depth;
  c.heads = std::max<int64_t>(1, c.dim / 64);
  c.mlp_ratio = double(shape("blocks.0.mlp.fc1.weight", 2)[0]) / double(c.dim);
  c.qkv_bias = names.count("blocks.0.attn.qkv.bias") > 0;
  try {
    validate(c);
  } catch (const Error& error) {
    fail(Exit::file, file.name(), ": its tensors' shapes make no ViT: ", error.what());
  }
  return c;
}

void load_parameters(Model& model, const SafetensorsFile& file) {
  auto names = plain_names(file);
  std::string problems;
  std::vector<std::pair<Tensor, const TensorEntry*>> copies;
  for (const auto& p : model.parameters().parameters()) {
    const auto found = names.find(p.name);
    if (found == names.end()) {
      problems += text("\n  missing: ", p.name, p.value.shape());
      continue;
    }
    if (shape_of(*found->second) == p.value.shape())
      copies.emplace_back(p.value, found->second);
    else
      problems += text("\n  ", p.name, ": ", shape_of(*found->second), " in the file, ", p.value.shape(),
                       " in the model");
    names.erase(found);
  }
  for (const auto& [name, entry] : names)
    problems += text("\n  not of this model: ", printable(name), shape_of(*entry));
  TESSERA_CHECK_AS(Exit::file, problems.empty(), file.name(), " does not fit the model ", model.config().name,
                   ":", problems);
  for (auto& [value, entry] : copies) {
    const size_t count = size_t(value.count());
    if (value.dtype() == DType::f32) {
      std::vector<float> values(count);
      file.read_f32(*entry, values);
      value.assign(std::span<const float>(values));
    } else {
      std::vector<double> values(count);
      file.read_f64(*entry, values);
      value.assign(std::span<const double>(values));
    }
  }
}

std::unique_ptr<Model> load_model(const SafetensorsFile& file, const std::optional<ModelConfig>& config) {
  const ModelConfig c = config ? *config : model_config_of(file);
  // Metadata may lie: nothing is built that the file could not fill.
  int64_t held = 0;
  for (const TensorEntry& entry : file.entries()) held += entry.count();
  TESSERA_CHECK_AS(Exit::file, cost(c).parameters <= 2 * held + 1000, file.name(), ": a model ", c.name,
                   " of ", cost(c).parameters, " parameters does not fit the ", held, " numbers in the file");
  auto model = make_model(c, std::nullopt);
  load_parameters(*model, file);
  return model;
}

}  // namespace tessera
