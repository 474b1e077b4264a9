#include "cuda/devices.h"

#include <charconv>

#include "engine/base/check.h"

namespace tessera {

Device device_by_name(const std::string& name, std::string* why_none) {
  if (name == "cpu") return {};
  int index = 0;
  bool known = name == "auto" || name == "cuda";
  if (name.starts_with("cuda:") && name.size() > 5) {
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + 5, end, index);
    known = error == std::errc() && stop == end && index >= 0;
  }
  TESSERA_CHECK_AS(Exit::usage, known, "the device '", name,
                   "' is not known: there are auto, cpu, cuda and cuda:I");
  std::string why;
  const int cards = int(cuda_devices(&why).size());
  if (name == "auto" && cards == 0) {
    if (why_none) *why_none = why;
    return {};
  }
  TESSERA_CHECK_AS(Exit::device, cards > 0, "the device ", name, " is not there: ",
                   why.empty() ? "this build has no CUDA back-end (-DTESSERA_CUDA=ON)" : why,
                   "; use --device cpu");
  TESSERA_CHECK_AS(Exit::device, index < cards, "the device ", name,
                   " is not there: the last card is cuda:", cards - 1);
  return {Device::Kind::cuda, index};
}

}  // namespace tessera
