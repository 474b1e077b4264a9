// Inputs of an op's case.
#pragma once

#include <sstream>
#include <string>

#include "engine/base/rng.h"
#include "engine/ops/cases.h"

namespace tessera {

// Normal numbers in the shapes of a case, "3x5 5"; f64, on the host.
inline Inputs random_inputs(const std::string& shapes) {
  Inputs inputs;
  std::istringstream words(shapes);
  for (std::string word; words >> word;) {
    Shape shape;
    std::istringstream sizes(word);
    for (std::string size; std::getline(sizes, size, 'x');) shape.push_back(std::stoll(size));
    Tensor x(shape, DType::f64);
    const Draw draw{.seed = 7, .stream = Stream::test, .step = uint32_t(inputs.size())};
    for (int64_t i = 0; i < x.count(); ++i) x.mutable_data<double>()[i] = draw.normal(uint64_t(i));
    inputs.push_back(x);
  }
  return inputs;
}

}  // namespace tessera
