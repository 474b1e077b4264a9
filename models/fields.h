// Configuration structs as lists of named fields: a struct says its keys once, in visit_fields, and JSON,
// TOML, flags and help all follow from that.
#pragma once

#include <concepts>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/nearest_name.h"

namespace tessera {

// The words that stand for an enumeration's values: field_names(E*) gives them.
template <class E>
using FieldNames = std::vector<std::pair<E, std::string_view>>;

template <class T>
nlohmann::json field_to_json(const T& field) {
  if constexpr (std::is_enum_v<T>) {
    for (const auto& [value, name] : field_names(static_cast<T*>(nullptr)))
      if (value == field) return name;
    return nullptr;
  } else {
    return field;
  }
}

// Sets a field from a JSON value of its type, or from a string that spells one.
template <class T>
void field_from_json(const std::string& key, const nlohmann::json& value, T& field) {
  const auto need = [&](bool fits, const char* what) {
    TESSERA_CHECK_AS(Exit::usage, fits, key, " = ", value.dump(), ": not ", what);
  };
  const bool text = value.is_string();
  if constexpr (std::is_same_v<T, std::string>) {
    field = text ? value.get<std::string>() : value.dump();
  } else if constexpr (std::is_enum_v<T>) {
    need(text, "a word");
    std::string known;
    for (const auto& [option, name] : field_names(static_cast<T*>(nullptr))) {
      if (name == value.get_ref<const std::string&>()) {
        field = option;
        return;
      }
      known += (known.empty() ? "" : ", ") + std::string(name);
    }
    fail(Exit::usage, key, " = ", value.dump(), ": not one of ", known);
  } else {
    const auto parsed =
        text ? nlohmann::json::parse(value.get_ref<const std::string&>(), nullptr, false) : value;
    if constexpr (std::is_same_v<T, bool>) {
      need(parsed.is_boolean(), "true or false");
    } else if constexpr (std::is_integral_v<T>) {
      // Unsigned numbers above the signed range would wrap.
      need(parsed.is_number_integer() &&
               !(parsed.is_number_unsigned() && parsed.template get<uint64_t>() >> 63),
           "an integer");
    } else {
      need(parsed.is_number(), "a number");
    }
    field = parsed.template get<T>();
  }
}

// A flat JSON object of all fields.
template <class Config>
nlohmann::ordered_json config_to_json(const Config& config) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  visit_fields(config,
               [&](const std::string& key, const auto& field) { object[key] = field_to_json(field); });
  return object;
}

template <class Config>
std::vector<std::string> field_keys(const Config& config) {
  std::vector<std::string> keys;
  visit_fields(config, [&](const std::string& key, const auto&) { keys.push_back(key); });
  return keys;
}

// Sets one field by its key; an unknown key is an error that names the nearest one.
template <class Config>
void set_field(Config& config, const std::string& key, const nlohmann::json& value) {
  bool found = false;
  visit_fields(config, [&](const std::string& name, auto& field) {
    if (name != key) return;
    field_from_json(key, value, field);
    found = true;
  });
  TESSERA_CHECK_AS(Exit::usage, found, "the key '", key, "' is not known; did you mean '",
                   nearest_name(key, field_keys(config)), "'?");
}

// From the flat object that config_to_json made.
template <class Config>
void config_from_json(Config& config, const nlohmann::json& object) {
  TESSERA_CHECK_AS(Exit::usage, object.is_object(), "configuration: not a JSON object");
  for (const auto& [key, value] : object.items()) set_field(config, key, value);
}

}  // namespace tessera
