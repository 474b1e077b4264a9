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
#include <string>
#include <string_view>

#include "engine/base/check.h"
#include "engine/base/shape.h"

namespace tessera {

class Dims {
 public:
  explicit Dims(std::string_view op) : op_(op) {}

  template <class T>
  Dims& operator()(const T& tensor, std::string_view pattern) {
    return bind(tensor.shape(), pattern);
  }

  int64_t operator[](char letter) const {
    const Binding& bound = bindings_[uint8_t(letter) & 127];
    TESSERA_CHECK(bound.size >= 0, op_, ": no shape was given for the letter ", letter);
    return bound.size;
  }

 private:
  struct Binding {
    int64_t size = -1;
    std::string_view tensor;  // the name in the pattern that bound it
    Shape shape;
  };

  Dims& bind(const Shape& shape, std::string_view pattern) {
    const size_t open = pattern.find('(');
    const std::string_view name = pattern.substr(0, open);
    std::string_view letters = pattern.substr(open + 1, pattern.size() - open - 2);
    const int axes = int(letters.size() + 1) / 2;  // single characters separated by commas
    const bool leading = letters[0] == '*';
    TESSERA_CHECK(leading ? shape.rank() >= axes - 1 : shape.rank() == axes, op_, ": ", name, shape,
                  " does not have the form ", pattern);
    const int first = shape.rank() - (axes - (leading ? 1 : 0));
    if (leading) bind('*', shape.count(0, first), name, shape);
    for (int i = leading ? 1 : 0, axis = first; i < axes; ++i, ++axis)
      bind(letters[size_t(2 * i)], shape[axis], name, shape);
    return *this;
  }

  void bind(char letter, int64_t size, std::string_view name, const Shape& shape) {
    if (letter >= '0' && letter <= '9') {
      TESSERA_CHECK(size == letter - '0', op_, ": ", name, shape, " has ", size, " where ", letter,
                    " is needed");
      return;
    }
    Binding& bound = bindings_[uint8_t(letter) & 127];
    if (bound.size < 0) bound = {size, name, shape};
    TESSERA_CHECK(bound.size == size, op_, ": ", bound.tensor, bound.shape, " and ", name, shape,
                  " differ in ", letter, ": ", bound.size, " and ", size);
  }

  std::string_view op_;
  std::array<Binding, 128> bindings_;
};

}  // namespace tessera
