// The CUDA devices that this build can use. The back-end itself has its place in this folder; none.cc stands
// in for it in a build without CUDA, so that nobody else asks whether there is one.
#pragma once

#include <string>
#include <vector>

namespace tessera {

// A line for each device; empty where there is none or the build has no CUDA.
std::vector<std::string> cuda_devices();

}  // namespace tessera
