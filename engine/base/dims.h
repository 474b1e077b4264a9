// Dims binds the project's letters to sizes and checks that equal letters agree, so that a shape comment
// cannot rot:
//
//   Dims dim("linear");
//   dim(x, "x(*,C)")(weight, "weight(O,C)");
//   const int64_t rows = dim['*'], O = dim['O'];
//
// throws "linear: x(8,65,192) and weight(576,384) differ in C: 192 and 384" where they do not.
//
// B batch, N tokens, C channels, H heads, D head size, E experts, M rows of one expert, O outputs, K classes,
// P patch. '*' first in a pattern takes all leading axes; a digit demands just that size.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "engine/base/shape.h"

namespace tessera {

class Dims {
 public:
  explicit Dims(std::string_view op) : op_(op) {}

  template <class T>
  Dims& operator()(const T& tensor, std::string_view pattern) {
    return bind(tensor.shape(), pattern);
  }

  int64_t operator[](char letter) const;

 private:
  struct Binding {
    int64_t size = -1;
    std::string_view tensor;  // the name in the pattern that bound it
    Shape shape;
  };

  Dims& bind(const Shape& shape, std::string_view pattern);
  void bind(char letter, int64_t size, std::string_view name, const Shape& shape);

  std::string_view op_;
  std::array<Binding, 128> bindings_;
};

}  // namespace tessera
