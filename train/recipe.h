// Recipes: the runs behind a paper's table, one TOML file each in recipes/, which the program carries within
// itself.
//
//   title, paper, notes       what it is, where from, and what in it is our choice
//   measured                  what we measured with it, on which machine and at what cost, in short
//   votes                     of point clouds: the accuracy by that many votes is in the table too
//   [run]                     settings of all runs, as in a file for `tessera train -c`; where there is a
//                             preset = "NAME", over that preset's
//   [tiny]  [full]            the same of the two scales, over those
//   [[arm]]                   one line of the table: name, and optionally
//     reported                  the paper's top-1 in per cent; without it, it is not known to us
//     start_from                the arm above this one whose weights of the same seed it starts from
//     superclasses_from         the arm above this one whose confusions of the same seed, on training
//                               images that it did not see, group the classes for its router
//     only                      tiny or full: at the other scale there is no such arm
//     compare_to                the arm, above this one, that it is the difference to; else the first
//     fuse                      true: it is fused after training, and the fused model is what counts
//     [arm.run]                 its settings, over all of these
//     [arm.tiny]  [arm.full]    the same at one scale, over those
//   [[axis]]                  in place of arms, which then are every combination of the axes' values
//     name                      what varies
//     [[axis.value]]            name, and run, tiny and full as an arm has them
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/config.h"

namespace tessera {

enum class Scale { tiny, full };

struct RecipeArm {
  std::string name, start_from, superclasses_from, compare_to;
  std::optional<double> reported;
  std::optional<Scale> only;
  bool fuse = false;
  // TOML texts, each over those before it.
  std::vector<std::string> run, tiny, full;
};

struct RecipeAxis {
  std::string name;
  std::vector<RecipeArm> values;  // name and settings
};

struct Recipe {
  std::string name, title, paper, notes, measured;
  int64_t votes = 1;
  std::vector<std::string> run, tiny, full;  // as an arm's
  std::vector<RecipeAxis> axes;
  std::vector<RecipeArm> arms;  // of axes: the last one varies first
};

// Error(Exit::usage) names the recipe, the key and what is wrong with it.
Recipe parse_recipe(const std::string& toml, const std::string& name);

const std::vector<Recipe>& recipes();
// An error (usage) naming the nearest name where there is none of this name.
const Recipe& recipe_by_name(const std::string& name);

// Those that there are at a scale.
std::vector<RecipeArm> arms_at(const Recipe& recipe, Scale scale);

// An arm's settings at a scale; not yet validated.
RunConfig config_of(const Recipe& recipe, const RecipeArm& arm, Scale scale);

}  // namespace tessera
