// A file of tests/fixtures: what PyTorch computed.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/tensor/tensor.h"
#include "tests/places.h"

namespace tessera {

class Fixture {
 public:
  explicit Fixture(const std::string& name) : file_(kSourceFolder + "/tests/fixtures/" + name) {}

  const SafetensorsFile& file() const { return file_; }
  // On the current device.
  Tensor floats(const std::string& name, DType dtype = DType::f64) const {
    const TensorEntry& e = entry(name);
    std::vector<double> values(size_t(e.count()));
    file_.read_f64(e, values);
    return Tensor::of(Shape(e.shape.begin(), e.shape.end()), values).to(dtype);
  }
  Tensor integers(const std::string& name) const {
    const TensorEntry& e = entry(name);
    std::vector<int32_t> values(size_t(e.count()));
    std::memcpy(values.data(), file_.bytes(e).data(), values.size() * sizeof(int32_t));
    return Tensor::of(Shape(e.shape.begin(), e.shape.end()), values);
  }
  std::string word(const std::string& key) const { return file_.metadata().at(key); }
  double number(const std::string& key) const { return std::stod(word(key)); }
  int64_t integer(const std::string& key) const { return std::stoll(word(key)); }

 private:
  const TensorEntry& entry(const std::string& name) const {
    const TensorEntry* found = file_.find(name);
    REQUIRE_MESSAGE(found, name);
    return *found;
  }

  SafetensorsFile file_;
};

}  // namespace tessera
