// Configuration structs as lists of named fields: a struct says its keys once, in fields(), and JSON, TOML,
// flags and help all follow from that.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace tessera {

// A field of one of the basic types, or of an enumeration whose values have words.
class Field {
 public:
  template <class T>
  Field(std::string key, T& field) : key_(std::move(key)), at_(&field) {}
  // words[i] is the word of the value i.
  template <class E>
  requires std::is_enum_v<E> Field(std::string key, E& field, std::span<const std::string_view> words)
      : key_(std::move(key)),
        at_(Word{&field, words, [](const void* at) { return size_t(*static_cast<const E*>(at)); },
                 [](void* at, size_t i) { *static_cast<E*>(at) = E(i); }}) {}

  const std::string& key() const { return key_; }
  Field under(const std::string& prefix) const;  // the same field as prefix.key

  nlohmann::ordered_json get() const;
  // From a JSON value of the field's type, or from a string that spells one; an error (usage) otherwise.
  void set(const nlohmann::json& value) const;

 private:
  struct Word {
    void* at;
    std::span<const std::string_view> words;
    size_t (*index)(const void*);
    void (*assign)(void*, size_t);
  };

  std::string key_;
  std::variant<std::string*, bool*, int*, int64_t*, uint64_t*, double*, Word> at_;
};

using Fields = std::vector<Field>;

// A flat JSON object of all fields.
nlohmann::ordered_json fields_to_json(const Fields& fields);
// From the text of such an object; an unknown key is an error (usage) that names the nearest one.
void fields_from_json(const Fields& fields, const std::string& text);
void set_field(const Fields& fields, const std::string& key, const nlohmann::json& value);

}  // namespace tessera
