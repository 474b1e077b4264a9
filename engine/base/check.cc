#include "engine/base/check.h"

#include <sstream>

namespace tessera {

std::string detail::join(std::initializer_list<Part> parts) {
  std::ostringstream out;
  for (const Part& part : parts) part.print(out);
  return out.str();
}

void detail::fail(Exit code, std::initializer_list<Part> parts) { throw Error(code, join(parts)); }

}  // namespace tessera
