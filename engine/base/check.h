// Errors: every message names the op or the file, both values, and what to do next.
#pragma once

#include <initializer_list>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace tessera {

// What a failure means to whoever started the program: its exit code.
enum class Exit {
  ok = 0,
  other = 1,
  usage = 2,         // command line or configuration
  data = 3,          // data set or image
  file = 4,          // weights or checkpoint; a file that cannot be written
  diverged = 5,      // a value that is not finite
  device = 6,        // device or memory
  verification = 7,  // a check of our own result failed
};

class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Exit code() const { return code_; }

 private:
  Exit code_;
};

namespace detail {

// Part of a message, of any type that operator<< prints: what joins them is compiled once, whatever they are.
class Part {
 public:
  template <class T>
  Part(const T& value)
      : value_(&value),
        print_([](std::ostream& out, const void* value) { out << *static_cast<const T*>(value); }) {}
  Part(const char* text)
      : value_(text),
        print_([](std::ostream& out, const void* text) { out << static_cast<const char*>(text); }) {}
  void print(std::ostream& out) const { print_(out, value_); }

 private:
  const void* value_;
  void (*print_)(std::ostream&, const void*);
};

std::string join(std::initializer_list<Part> parts);
[[noreturn]] void fail(Exit code, std::initializer_list<Part> parts);

}  // namespace detail

// Joins its arguments as operator<< prints them.
template <class... Parts>
std::string text(const Parts&... parts) {
  return detail::join({detail::Part(parts)...});
}

template <class... Parts>
[[noreturn]] void fail(Exit code, const Parts&... parts) {
  detail::fail(code, {detail::Part(parts)...});
}

}  // namespace tessera

// Both stay on in release builds; the message is only put together on failure.
#define TESSERA_CHECK_AS(code, condition, ...) \
  do {                                         \
    if (!(condition)) [[unlikely]]             \
      ::tessera::fail(code, __VA_ARGS__);      \
  } while (false)
#define TESSERA_CHECK(condition, ...) TESSERA_CHECK_AS(::tessera::Exit::other, condition, __VA_ARGS__)
