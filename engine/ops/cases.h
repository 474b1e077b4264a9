// Test cases of an op, declared once beside it. The tests run each as finite differences in f64, against the
// composed twin, accumulating into a filled gradient, overwriting NaN, f32 against f64, and for equal bits.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/tensor/tensor.h"

namespace tessera {

using Inputs = std::vector<Tensor>;

struct OpCase {
  std::string op;
  std::vector<const char*> shapes;            // each a list of inputs: "3x5 5" is x(3,5), y(5)
  std::function<Tensor(const Inputs&)> run;   // any shape of result
  std::function<Tensor(const Inputs&)> twin;  // the same from simpler ops
  std::function<void(Inputs&)> prepare = {};  // moves random inputs into the op's domain, away from kinks
};

std::vector<OpCase>& op_cases();

struct RegisterCase {
  explicit RegisterCase(OpCase op_case);
};

}  // namespace tessera

#define TESSERA_CASES_JOIN(a, b) a##b
#define TESSERA_CASES_NAME(line) TESSERA_CASES_JOIN(registered_case_, line)
#define TESSERA_CASES static const ::tessera::RegisterCase TESSERA_CASES_NAME(__LINE__)
