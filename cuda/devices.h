// The cards that this build can use, and the device that a name means.
#pragma once

#include <string>
#include <vector>

#include "engine/base/device.h"

namespace tessera {

// A line for each card; empty where there is none, with the reason in `why_none` where the build has CUDA.
std::vector<std::string> cuda_devices(std::string* why_none = nullptr);

// cpu, cuda (the first card), cuda:I, or auto: the first card, and the CPU where there is none, with the
// reason in `why_none` where the build has CUDA. What is not there is Error(Exit::device), what is no such
// name Error(Exit::usage).
Device device_by_name(const std::string& name, std::string* why_none = nullptr);

}  // namespace tessera
