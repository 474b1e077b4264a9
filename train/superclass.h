// Super-classes: groups of classes that a model confuses, one group for each expert (Mobile V-MoEs, arXiv
// 2309.04354, after Jin et al., IJCAI 2017): a dense model's confusions on images that it was not trained on
// make a graph of classes, whose communities are the groups.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "train/config.h"
#include "train/graph_clustering.h"
#include "train/replicas.h"

namespace tessera {

// Row k: how class k is predicted, the sum over its images of the probabilities of the 5 likeliest classes
// (Jin et al. add up the scores of the top predictions; how many is our choice). Of the images from `first`
// on, at most `limit` (0: all).
struct Confusion {
  int64_t classes = 0, images = 0;
  std::vector<double> rows;  // (classes, classes)
};
Confusion confusion(Replicas& replicas, const Dataset& data, const Normalization& normalization,
                    int64_t first, int64_t limit);
// A note for the user where some classes have no image among them, else empty.
std::string unseen_classes(const Confusion& confusion, const std::vector<std::string>& class_names);

// An error (usage) where the model in `file` is a mixture, whose confusions are its routing's too.
void check_dense(const ModelConfig& model, const std::string& file);

// An error (usage) where a run on the first `trained_on` training images (0: all) leaves none of them out.
void check_held_out(const Dataset& training, int64_t trained_on);

// P + P^T with the rows P summing to 1 and nothing on the diagonal.
Graph confusion_graph(const Confusion& confusion);

// A super-class of each class.
using Superclasses = std::vector<int32_t>;

// A TOML file: a list of [[group]], each with its classes' names. Reading is an error (usage) unless each of
// the classes is in exactly one of `groups` groups.
std::string superclasses_to_toml(const Superclasses& superclass, const std::vector<std::string>& class_names,
                                 const std::string& comment);
Superclasses superclasses_from_toml(const std::string& toml, const std::string& file_name,
                                    const std::vector<std::string>& class_names, int64_t groups);

// What model.moe.superclasses names: "coarse", the data set's own; "random", groups of sizes that differ by
// at most one, drawn from the seed; or a file.
Superclasses find_superclasses(const std::string& source, const Dataset& data, int64_t groups, uint64_t seed);

// Writes to model.moe.groups what model.moe.superclasses names, unless they are there.
void fill_superclasses(RunConfig& config);

}  // namespace tessera
