#define TOML_IMPLEMENTATION
#include "train/toml.h"
