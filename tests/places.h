// Where the tests find what is not compiled into them.
#pragma once

#include <string>

namespace tessera {

extern const std::string kSourceFolder;  // of the project
extern const std::string kProgram;       // the built program; empty where it is not part of the build

}  // namespace tessera
