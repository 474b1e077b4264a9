# Writes OUT, a C++ file that holds the text of every recipe in FOLDER.
file(GLOB files ${FOLDER}/*.toml)
string(CONCAT content "#include <string>\n#include <utility>\n#include <vector>\n\nnamespace tessera {\n"
                      "extern const std::vector<std::pair<std::string, std::string>> kRecipeFiles;\n"
                      "const std::vector<std::pair<std::string, std::string>> kRecipeFiles{\n")
foreach(file IN LISTS files)
  get_filename_component(name "${file}" NAME_WE)
  file(READ "${file}" source)
  string(APPEND content "{\"${name}\", R\"recipe(${source})recipe\"},\n")
endforeach()
string(APPEND content "};\n}  // namespace tessera\n")
file(WRITE "${OUT}" "${content}")
