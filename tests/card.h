// The card that tests run on, where there is one.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "cuda/devices.h"

namespace tessera {

constexpr Device kCard{Device::Kind::cuda, 0};

// Whether there is none, which is then said in one line.
inline bool no_card() {
  std::string why = "this build has no CUDA";
  if (!cuda_devices(&why).empty()) return false;
  MESSAGE("skipped: there is no card: ", why);
  return true;
}

}  // namespace tessera
