// Names and words that come out of a file, made fit for a terminal and a log line.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace tessera {

// Bytes of the first character of words that are not empty; 0 where it is no UTF-8 (RFC 3629, so neither
// overlong nor a surrogate).
inline size_t utf8_length(std::string_view words) {
  const auto byte = [=](size_t i) {
    return i < words.size() ? int(static_cast<unsigned char>(words[i])) : 0;
  };
  const int first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const bool wrong = first < 0xC2 || first > 0xF4 || (first == 0xE0 && second < 0xA0) ||
                     (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
                     (first == 0xF4 && second > 0x8F);
  return wrong ? 0 : length;
}

inline bool is_utf8(std::string_view words) {
  while (!words.empty()) {
    const size_t length = utf8_length(words);
    if (length == 0) return false;
    words.remove_prefix(length);
  }
  return true;
}

// `words` with '?' for control characters and for bytes that are no UTF-8.
inline std::string harmless(std::string_view words) {
  std::string out;
  while (!words.empty()) {
    const size_t length = utf8_length(words);
    const auto byte = [=](size_t i) { return static_cast<unsigned char>(words[i]); };
    const bool control =
        byte(0) < 0x20 || byte(0) == 0x7F || (length == 2 && byte(0) == 0xC2 && byte(1) < 0xA0);
    out += length == 0 || control ? std::string_view("?") : words.substr(0, length);
    words.remove_prefix(std::max<size_t>(1, length));
  }
  return out;
}

constexpr size_t kShownBytes = 100;

// The first `limit` bytes of `words`, to the end of a character, and dots where there were more.
inline std::string shortened(std::string_view words, size_t limit = kShownBytes) {
  if (words.size() <= limit) return std::string(words);
  while (limit > 0 && (static_cast<unsigned char>(words[limit]) & 0xC0) == 0x80) --limit;
  return std::string(words.substr(0, limit)) + "...";
}

// Harmless, shortened and in single quotes.
inline std::string printable(std::string_view words, size_t limit = kShownBytes) {
  std::string out = "'";
  out += harmless(shortened(words, limit));
  return out += "'";
}

}  // namespace tessera
