// A name out of a fixed list, as configurations give it.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string_view>

namespace tessera {

// The index of `name` among `known`. Any other name is Error(Exit::usage): it calls the list `what`, and
// names the nearest entry (fewest letters to insert, drop or replace) and all of them.
size_t known_name(std::string_view what, std::string_view name,
                  std::initializer_list<std::string_view> known);

}  // namespace tessera
