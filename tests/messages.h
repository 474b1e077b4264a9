// What a message says, and the error that must come with one.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "engine/base/check.h"

namespace tessera::testing {

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Caught {
  Exit code = Exit::ok;
  std::string message;

  // Shows the message where the part is missing.
  bool has(const std::string& part) const {
    const bool found = contains(message, part);
    if (!found) MESSAGE("'", part, "' is not in: ", message);
    return found;
  }
};

// The error in which `f` must end.
template <class F>
Caught error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  FAIL("no error");
  return {};
}

// The same, with this code.
template <class F>
Caught error_of(Exit code, F&& f) {
  const Caught error = error_of(f);
  CHECK(error.code == code);
  return error;
}

}  // namespace tessera::testing
