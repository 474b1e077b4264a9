#include "engine/base/shape.h"

#include <ostream>

#include "engine/base/check.h"

namespace tessera {

void Shape::push_back(int64_t size) {
  TESSERA_CHECK(rank_ < kMaxRank, "shape: more than ", kMaxRank, " axes");
  TESSERA_CHECK(size >= 0, "shape: negative size ", size);
  sizes_[size_t(rank_++)] = size;
}

int64_t Shape::count(int first, int last) const {
  int64_t product = 1;
  for (int axis = first; axis < last; ++axis)
    TESSERA_CHECK(!__builtin_mul_overflow(product, sizes_[size_t(axis)], &product), "shape: ", *this,
                  " has more elements than fit in 63 bits");
  return product;
}

int Shape::checked(int axis) const {
  const int positive = axis < 0 ? axis + rank_ : axis;
  TESSERA_CHECK(positive >= 0 && positive < rank_, "shape: axis ", axis, " of ", *this, " does not exist");
  return positive;
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '(';
  for (int axis = 0; axis < shape.rank_; ++axis) out << (axis ? "," : "") << shape[axis];
  return out << ')';
}

}  // namespace tessera
