// The command line of one verb. Its .cc file alone knows the library that parses it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tessera::cli {

// The words of --set, each "key=value", in two.
std::vector<std::pair<std::string, std::string>> key_values(const std::vector<std::string>& words);

// Names are written "-o,--out" for options and "WEIGHTS" for positional arguments; `kind` stands for the
// value in the help. What is not given leaves the variable as it was.
class Arguments {
 public:
  explicit Arguments(const std::string& verb, const std::string& summary, const std::string& notes);
  ~Arguments();

  void required(const std::string& name, std::string& value, const std::string& help);
  void optional(const std::string& name, std::string& value, const std::string& help);
  void rest(const std::string& name, std::vector<std::string>& values, const std::string& help);

  void flag(const std::string& names, bool& value, const std::string& help);
  void option(const std::string& names, const std::string& kind, std::string& value, const std::string& help);
  void option(const std::string& names, const std::string& kind, std::vector<std::string>& values,
              const std::string& help);
  void option(const std::string& names, const std::string& kind, std::vector<int64_t>& values,
              const std::string& help);
  void option(const std::string& names, double& value, const std::string& help);
  // A whole number, at least `least`.
  void option(const std::string& names, int64_t& value, int64_t least, const std::string& help);
  // Hands the text of the value on, when it is given.
  void option(const std::string& names, const std::string& kind,
              const std::function<void(const std::string&)>& take, const std::string& help);

  // False when the help was asked for and printed. An Error (usage) names the nearest option where there is
  // none of a name.
  bool parse(const std::vector<std::string>& words);

 private:
  std::vector<std::string> option_names() const;

  std::unique_ptr<CLI::App> app_;
};

}  // namespace tessera::cli
