#include "cli/model_file.h"

#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/base/parallel.h"
#include "engine/io/printable.h"
#include "train/trainer.h"

namespace tessera::cli {
namespace {

// A list in the metadata of `count` entries, each of which `fits`; nothing where the key is not there.
template <class T, class Fits>
std::vector<T> metadata_list(const ModelFile& file, const char* key, int64_t count, Fits fits) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) return {};
  const auto list = nlohmann::json::parse(found->second, nullptr, false);
  bool good = list.is_array() && int64_t(list.size()) == count;
  for (size_t i = 0; good && i < list.size(); ++i) good = fits(list[i]);
  TESSERA_CHECK_AS(Exit::file, good, file.path, ": metadata ", key, " = ", printable(found->second),
                   ": not a list of ", count, " valid entries");
  return list.get<std::vector<T>>();
}

}  // namespace

std::string ModelFile::class_name(int64_t k) const {
  return classes.empty() ? text("class ", k) : classes[size_t(k)];
}

ModelFile load_model_file(const std::string& file_or_folder) {
  ModelFile result;
  result.path = weights_path(file_or_folder);
  const SafetensorsFile file(result.path);
  result.metadata = file.metadata();
  result.model = load_model(file);
  const ModelConfig& c = result.config();
  result.classes = metadata_list<std::string>(result, kClassesKey, c.classes,
                                              [](const auto& name) { return name.is_string(); });
  const auto finite = [](const auto& value) {
    return value.is_number() && std::isfinite(value.template get<float>());
  };
  const auto positive = [&](const auto& value) { return finite(value) && value.template get<float>() > 0; };
  Normalization norm{metadata_list<float>(result, kMeanKey, c.channels, finite),
                     metadata_list<float>(result, kStdKey, c.channels, positive)};
  if (!norm.mean.empty() && !norm.std.empty()) result.normalization = norm;
  if (const auto found = result.metadata.find(kCropKey); found != result.metadata.end()) {
    const auto crop = nlohmann::json::parse(found->second, nullptr, false);
    TESSERA_CHECK_AS(Exit::file, crop.is_number() && crop.get<double>() > 0 && crop.get<double>() <= 1,
                     result.path, ": metadata ", kCropKey, " = ", printable(found->second),
                     ": not a number in (0,1]");
    result.crop = crop.get<double>();
  }
  return result;
}

std::string data_folder(const ModelFile& file, const std::string& given) {
  if (!given.empty()) return given;
  const auto found = file.metadata.find(kDataKey);
  std::error_code ignored;
  return found != file.metadata.end() && std::filesystem::is_directory(found->second, ignored)
             ? found->second
             : std::string();
}

Split split_by_name(const std::string& word) {
  TESSERA_CHECK_AS(Exit::usage, word == "test" || word == "train", "--split ", word, ": not test or train");
  return word == "test" ? Split::test : Split::train;
}

Dataset load_data_for(const ModelFile& file, const std::string& folder, Split split,
                      const std::string& name) {
  TESSERA_CHECK_AS(Exit::usage, !folder.empty(), "no data set: give its folder by --data DIR");
  // IDX files do not say which set they are; of the folder it was trained on the model remembers it.
  const auto own = file.metadata.find(kDataNameKey), home = file.metadata.find(kDataKey);
  const bool remembered = own != file.metadata.end() && home != file.metadata.end() && home->second == folder;
  const std::string which = name.empty() && remembered ? own->second : name;
  Dataset data = load_dataset(folder, split, which);
  for (const std::string& note : data.notes) warn(note);
  const ModelConfig& c = file.config();
  const Shape has = data.samples->shape(), takes = c.input_shape();
  for (int axis = 0; axis < takes.rank(); ++axis)  // a size of 0 follows the model
    TESSERA_CHECK_AS(Exit::data, has.rank() == takes.rank() && (has[axis] == 0 || has[axis] == takes[axis]),
                     folder, ": samples ", has, ", but the model of ", file.path, " takes ", takes);
  TESSERA_CHECK_AS(Exit::data, data.classes() == c.classes, folder, ": ", data.classes(),
                   " classes, but the model of ", file.path, " has ", c.classes);
  if (!file.classes.empty() && file.classes != data.class_names)
    warn(text("the classes of ", file.path, " (", printable(file.classes[0]), ", ...) are not those of ",
              data.name, " (", printable(data.class_names[0]),
              ", ...): labels may not mean the same; --name tells which set the files are"));
  return data;
}

Normalization normalization_for(const ModelFile& file, const Dataset& data) {
  return file.normalization ? *file.normalization : normalization(data.name);
}

PrepareOptions prepare_options(const ModelFile& file, const Dataset& data) {
  return {.shape = file.config().input_shape(), .normalization = normalization_for(file, data)};
}

void warn(const std::string& message) { std::cerr << "tessera: warning: " << message << std::endl; }

void use_threads(int64_t threads) {
  TESSERA_CHECK_AS(Exit::usage, threads <= 4096, "--threads ", threads, ": at most 4096");
  if (threads > 0) set_thread_count(int(threads));
}

}  // namespace tessera::cli
