#include "models/fields.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/check.h"
#include "engine/base/nearest_name.h"
#include "engine/io/printable.h"

namespace tessera {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;  // clang needs to be told

// A value as JSON, whatever the bytes of a string.
std::string dumped(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// What can be written to any file and read back.
bool is_text(const std::string& words) {
  const auto control = [](char c) { return uint8_t(c) < 0x20 || c == 0x7F; };
  return nlohmann::json::parse(dumped(words)) == words && std::none_of(words.begin(), words.end(), control);
}

// A number or truth value, or the one that a string spells.
nlohmann::json plain(const nlohmann::json& value) {
  return value.is_string() ? nlohmann::json::parse(value.get_ref<const std::string&>(), nullptr, false)
                           : value;
}

}  // namespace

Field Field::under(const std::string& prefix) const {
  Field copy = *this;
  copy.key_ = prefix + "." + key_;
  return copy;
}

nlohmann::ordered_json Field::get() const {
  return std::visit(Overloaded{[](const Word& w) { return nlohmann::ordered_json(w.words[w.index(w.at)]); },
                               [](const auto* field) { return nlohmann::ordered_json(*field); }},
                    at_);
}

void Field::set(const nlohmann::json& value) const {
  // How deep a list goes is up to the file, and to copy or print it is a recursion.
  TESSERA_CHECK_AS(Exit::usage, !value.is_structured(), key_,
                   ": a list or an object; give a string, number, true or false");
  const auto need = [&](bool fits, const std::string& what) {
    TESSERA_CHECK_AS(Exit::usage, fits, key_, " = ", shortened(dumped(value)), ": not ", what);
  };
  const auto integer = [&](int64_t lowest, int64_t highest) {
    const nlohmann::json number = plain(value);
    // Unsigned numbers above the signed range would wrap.
    const bool fits = number.is_number_integer() &&
                      !(number.is_number_unsigned() && number.get<uint64_t>() > uint64_t(INT64_MAX));
    need(fits && number.get<int64_t>() >= lowest && number.get<int64_t>() <= highest,
         text("an integer from ", lowest, " to ", highest));
    return number.get<int64_t>();
  };
  std::visit(Overloaded{[&](std::string* field) {
                          const auto words = value.is_string() ? value.get<std::string>() : value.dump();
                          need(is_text(words), "text in UTF-8 without control characters");
                          *field = words;
                        },
                        [&](bool* field) {
                          const nlohmann::json flag = plain(value);
                          need(flag.is_boolean(), "true or false");
                          *field = flag.get<bool>();
                        },
                        [&](int* field) { *field = int(integer(INT32_MIN, INT32_MAX)); },
                        [&](int64_t* field) { *field = integer(INT64_MIN, INT64_MAX); },
                        [&](uint64_t* field) { *field = uint64_t(integer(0, INT64_MAX)); },
                        [&](double* field) {
                          const nlohmann::json number = plain(value);
                          need(number.is_number(), "a number");
                          need(std::isfinite(number.get<double>()), "a finite number");
                          *field = number.get<double>();
                        },
                        [&](const Word& w) {
                          std::string known;
                          for (const std::string_view word : w.words)
                            known += (known.empty() ? "" : ", ") + std::string(word);
                          const auto found = value.is_string()
                                                 ? std::find(w.words.begin(), w.words.end(),
                                                             value.get_ref<const std::string&>())
                                                 : w.words.end();
                          need(found != w.words.end(), "one of " + known);
                          w.assign(w.at, size_t(found - w.words.begin()));
                        }},
             at_);
}

nlohmann::ordered_json fields_to_json(const Fields& fields) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const Field& field : fields) object[field.key()] = field.get();
  return object;
}

void set_field(const Fields& fields, const std::string& key, const nlohmann::json& value) {
  const auto found =
      std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.key() == key; });
  if (found != fields.end()) return found->set(value);
  std::vector<std::string> keys;
  for (const Field& field : fields) keys.push_back(field.key());
  fail(Exit::usage, "the key ", printable(key), " is not known; did you mean '", nearest_name(key, keys),
       "'?");
}

void fields_from_json(const Fields& fields, const std::string& text) {
  const auto object = nlohmann::json::parse(text, nullptr, false);
  TESSERA_CHECK_AS(Exit::usage, object.is_object(), "configuration: not a JSON object");
  for (const auto& [key, value] : object.items()) set_field(fields, key, value);
}

}  // namespace tessera
