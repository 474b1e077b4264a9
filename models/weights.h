// Models in safetensors files: timm's names and shapes, the configuration in the metadata.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/io/safetensors.h"
#include "models/model.h"

namespace tessera {

// Metadata keys of the files written here.
inline constexpr const char* kModelKey = "tessera.model";      // ModelConfig as JSON
inline constexpr const char* kClassesKey = "tessera.classes";  // JSON list of class names
inline constexpr const char* kMeanKey = "tessera.mean";        // JSON list, one a channel, of pixels in [0,1]
inline constexpr const char* kStdKey = "tessera.std";
inline constexpr const char* kCropKey = "tessera.crop";  // the part of an image's shorter side that is seen
inline constexpr const char* kDataKey = "tessera.data";  // the folder of the data set it was trained on
inline constexpr const char* kDataNameKey = "tessera.data_name";  // and that set's name

// Names that begin so are a checkpoint's optimizer state, and no part of the model.
inline const std::string kOptimizerPrefix = "optimizer.";

// A file's model tensors, named without the prefixes that wrappers of other programs add (module.,
// _orig_mod.).
std::map<std::string, const TensorEntry*> plain_names(const SafetensorsFile& file);
Shape shape_of(const TensorEntry& entry);

// Adds a tensor of floats to a file being written: itself where it is on the host, or a copy from its card.
void add_tensor(SafetensorsWriter& writer, const std::string& name, const Tensor& tensor);
// Adds all parameters and the model's metadata to a file being written.
void add_parameters(SafetensorsWriter& writer, const Model& model);
// Writes all parameters atomically; `metadata` is added to the model's own.
void save_model(const std::string& path, const Model& model, const Metadata& metadata);

// The model that a file holds: from its metadata, or, for a file of timm, from its shapes (heads of 64
// channels).
ModelConfig model_config_of(const SafetensorsFile& file);

// Fills `model` from a file. Every parameter must be there in its shape and nothing else; all that is
// missing, unexpected or of another shape is listed in one error (file).
void load_parameters(Model& model, const SafetensorsFile& file);

// Both steps. `config` overrides what the file says.
std::unique_ptr<Model> load_model(const SafetensorsFile& file, const std::optional<ModelConfig>& config = {});

}  // namespace tessera
