#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "tests/places.h"

namespace tessera {

const std::string kSourceFolder = TESSERA_SOURCE_DIR;
const std::string kProgram = TESSERA_PROGRAM;

}  // namespace tessera
