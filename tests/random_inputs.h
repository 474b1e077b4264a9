// Random inputs: normal numbers.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "engine/base/rng.h"
#include "engine/ops/cases.h"

namespace tessera {

inline Tensor normal(const Shape& shape, const Draw& draw, DType dtype = DType::f64) {
  Tensor x(shape, DType::f64);
  for (int64_t i = 0; i < x.count(); ++i) x.mutable_data<double>()[i] = draw.normal(uint64_t(i));
  return x.to(dtype);
}
// Of another `site`, others.
inline Tensor normal(const Shape& shape, uint32_t site = 0, DType dtype = DType::f64) {
  return normal(shape, Draw{.seed = 3, .site = site}, dtype);
}

template <class T>
std::vector<T> normal_values(int64_t count, uint32_t site, double scale = 1) {
  const Draw draw{.seed = 7, .stream = Stream::test, .site = site};
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = T(scale * draw.normal(i));
  return values;
}

// In the shapes of a case, "3x5 5"; f64, on the host.
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
