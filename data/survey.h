// What a labelled set holds, found by reading all of it.
#pragma once

#include "data/dataset.h"

namespace tessera {

struct Survey {
  int64_t read = 0;  // samples that were looked at
  int64_t unreadable = 0;
  std::vector<std::string> errors;                // of the first that cannot be read
  int64_t smallest_class = 0, largest_class = 0;  // samples of a class
  // Of image sets:
  int64_t least_height = 0, most_height = 0, least_width = 0, most_width = 0;
  std::vector<double> mean, std;  // per channel, of pixels in [0, 1]; each image counts alike
};

// Reads the first `limit` samples, on all threads; 0: all.
Survey survey(const Dataset& data, int64_t limit = 0);

}  // namespace tessera
