// Where a thread works: its new tensors live on the current device, and its kernels run there.
#pragma once

#include <cstdint>
#include <ostream>
#include <utility>

namespace tessera {

struct Device {
  enum class Kind : uint8_t { cpu, cuda };

  Kind kind = Kind::cpu;
  int index = 0;  // of the card

  bool is_cuda() const { return kind == Kind::cuda; }
  friend bool operator==(const Device&, const Device&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Device& device) {
    return device.is_cuda() ? out << "cuda:" << device.index : out << "cpu";
  }

  static Device& current() {
    thread_local Device device;
    return device;
  }

  class Scope;
};

// RAII: makes `device` current while it lives.
class Device::Scope {
 public:
  explicit Scope(const Device& device) : former_(std::exchange(current(), device)) {}
  ~Scope() { current() = former_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Device former_;
};

}  // namespace tessera
