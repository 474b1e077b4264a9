#include "cli/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "engine/base/check.h"
#include "engine/base/nearest_name.h"

namespace tessera::cli {

std::vector<std::pair<std::string, std::string>> key_values(const std::vector<std::string>& words) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    TESSERA_CHECK_AS(Exit::usage, equals != std::string::npos && equals > 0, "--set ", word,
                     ": write it as key=value, such as optim.lr=3e-4");
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

Arguments::Arguments(const std::string& verb, const std::string& summary, const std::string& notes)
    : app_(std::make_unique<CLI::App>(summary, "tessera " + verb)) {
  app_->set_help_flag("-h,--help", "This text");
  app_->option_defaults()->always_capture_default();
  app_->get_formatter()->column_width(28);
  app_->footer(notes);
}

Arguments::~Arguments() = default;

void Arguments::required(const std::string& name, std::string& value, const std::string& help) {
  app_->add_option(name, value, help)->required()->type_name("");
}

void Arguments::optional(const std::string& name, std::string& value, const std::string& help) {
  app_->add_option(name, value, help)->type_name("");
}

void Arguments::rest(const std::string& name, std::vector<std::string>& values, const std::string& help) {
  app_->add_option(name, values, help)->type_name("")->default_str("");
}

void Arguments::flag(const std::string& names, bool& value, const std::string& help) {
  app_->add_flag(names, value, help)->default_str("");
}

void Arguments::option(const std::string& names, const std::string& kind, std::string& value,
                       const std::string& help) {
  app_->add_option(names, value, help)->type_name(kind);
}

void Arguments::option(const std::string& names, const std::string& kind, std::vector<std::string>& values,
                       const std::string& help) {
  app_->add_option(names, values, help)->type_name(kind)->default_str("");
}

void Arguments::option(const std::string& names, const std::string& kind, std::vector<int64_t>& values,
                       const std::string& help) {
  app_->add_option(names, values, help)->type_name(kind)->default_str("");
}

void Arguments::option(const std::string& names, double& value, const std::string& help) {
  app_->add_option(names, value, help)->type_name("X");
}

void Arguments::option(const std::string& names, int64_t& value, int64_t least, const std::string& help) {
  const auto rule = [least](const std::string& word) -> std::string {
    int64_t number = 0;
    if (CLI::detail::lexical_cast(word, number) && number >= least) return {};
    return text("'", word, "' is not a whole number from ", least, " on");
  };
  app_->add_option(names, value, help)->type_name("N")->check(CLI::Validator(rule, ""));
}

void Arguments::option(const std::string& names, const std::string& kind,
                       const std::function<void(const std::string&)>& take, const std::string& help) {
  app_->add_option_function<std::string>(names, take, help)->type_name(kind);
}

std::vector<std::string> Arguments::option_names() const {
  std::vector<std::string> names;
  for (const CLI::Option* option : app_->get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

bool Arguments::parse(const std::vector<std::string>& words) {
  const std::string see = "; see `" + app_->get_name() + " --help`";
  try {
    app_->parse(std::vector<std::string>(words.rbegin(), words.rend()));  // it takes them from the end
  } catch (const CLI::CallForHelp&) {
    std::cout << app_->help();
    return false;
  } catch (const CLI::ParseError& error) {
    // An unknown option comes first: what else is missing may follow from it.
    for (const std::string& word : app_->remaining()) {
      TESSERA_CHECK_AS(Exit::usage, !word.starts_with("-"), "the option '", word,
                       "' is not known; did you mean '",
                       nearest_name(word.substr(0, word.find('=')), option_names()), "'?", see);
    }
    fail(Exit::usage, error.what(), see);
  }
  return true;
}

}  // namespace tessera::cli
