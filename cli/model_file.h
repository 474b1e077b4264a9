// What the verbs share that take a weights file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "models/model.h"
#include "models/weights.h"
#include "optim/experts_averaging.h"

namespace tessera::cli {

// A file's model with what its metadata say about its use.
struct ModelFile {
  std::string path;
  Metadata metadata;
  std::unique_ptr<Model> model;
  std::vector<std::string> classes;            // empty where the file has no names
  std::optional<Normalization> normalization;  // nothing where the file does not say
  double crop = 1;                             // the part of an image's shorter side that is seen

  const ModelConfig& config() const { return model->config(); }
  std::string class_name(int64_t k) const;
};

ModelFile load_model_file(const std::string& file_or_folder);

// `given`, or else the folder that the model was trained on as its file remembers it; empty where it is gone.
std::string data_folder(const ModelFile& file, const std::string& given);

// "test" or "train".
Split split_by_name(const std::string& word);

// One split of the folder, which must have the images and classes that the model takes. Class names that
// differ from the file's are warned of.
Dataset load_data_for(const ModelFile& file, const std::string& folder, Split split, const std::string& name);

// The file's own normalization, or else that of the data set.
Normalization normalization_for(const ModelFile& file, const Dataset& data);

// How samples are made ready for the file's model.
PrepareOptions prepare_options(const ModelFile& file, const Dataset& data);

void warn(const std::string& message);

// One thread count for everything; 0 keeps all.
void use_threads(int64_t threads);

}  // namespace tessera::cli
