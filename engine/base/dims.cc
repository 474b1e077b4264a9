#include "engine/base/dims.h"

#include "engine/base/check.h"

namespace tessera {

int64_t Dims::operator[](char letter) const {
  const Binding& bound = bindings_[uint8_t(letter) & 127];
  TESSERA_CHECK(bound.size >= 0, op_, ": no shape was given for the letter ", letter);
  return bound.size;
}

Dims& Dims::bind(const Shape& shape, std::string_view pattern) {
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

void Dims::bind(char letter, int64_t size, std::string_view name, const Shape& shape) {
  if (letter >= '0' && letter <= '9') {
    TESSERA_CHECK(size == letter - '0', op_, ": ", name, shape, " has ", size, " where ", letter,
                  " is needed");
    return;
  }
  Binding& bound = bindings_[uint8_t(letter) & 127];
  if (bound.size < 0) bound = {size, name, shape};
  TESSERA_CHECK(bound.size == size, op_, ": ", bound.tensor, bound.shape, " and ", name, shape, " differ in ",
                letter, ": ", bound.size, " and ", size);
}

}  // namespace tessera
