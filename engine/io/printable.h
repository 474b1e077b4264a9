// Names and words that come out of a file, made fit for a terminal and a log line.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tessera {

// `words` in single quotes, control bytes as '?', cut to `limit` bytes at a character boundary of UTF-8.
inline std::string printable(std::string_view words, size_t limit = 100) {
  const bool cut = words.size() > limit;
  if (cut) {
    while (limit > 0 && (static_cast<unsigned char>(words[limit]) & 0xC0) == 0x80) --limit;
    words = words.substr(0, limit);
  }
  std::string out = "'";
  for (const char c : words) out += (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) ? '?' : c;
  return out + (cut ? "...'" : "'");
}

}  // namespace tessera
