// 1. Tensors: numbers in rows, with a shape and a type.
//
// A tensor is a handle: copies share the numbers, and so does a reshape. All tensors are dense and row-major,
// so there is nothing to know about strides.
#include <iostream>

#include "engine/ops/ops.h"

using namespace tessera;

int main() {
  Tensor x = Tensor::of({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  std::cout << "x = " << x << '\n';

  // A view of the same six numbers: writing through one is seen through the other.
  Tensor column = x.reshape({6, 1});
  column.mutable_data<float>()[0] = 10;
  const bool shared = x.at(0) == 10;
  std::cout << "after writing through a reshape, x = " << x << '\n';

  // Sizes of 1 broadcast: one row is added to both rows, one number multiplies all.
  const Tensor row = Tensor::of({3}, std::vector<float>{100, 200, 300});
  const Tensor sum = add(x, row), half = scale(sum, 0.5);
  std::cout << "(x + row) / 2 = " << half << '\n';

  // op(a) op(b): transposition is a flag, never a copy.
  const Tensor gram = matmul(x, x, false, true);
  std::cout << "x x^T = " << gram << '\n';

  // Shapes are checked on every call, and an error says what differs. Letters stand for sizes: see ops.h.
  bool refused = false;
  try {
    linear(x, Tensor::zeros({4, 2}));
  } catch (const Error& error) {
    refused = true;
    std::cout << "refused: " << error.what() << '\n';
  }
  return shared && refused && half.at(5) == 153 && gram.at(1) == gram.at(2) ? 0 : 1;
}
