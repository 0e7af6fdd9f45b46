#include <iostream>

#include "cli/command.h"

namespace cli {

void AddVersion(CLI::App* app, int* exit_code) {
  app->callback([exit_code] {
    std::cout << "holdfast " HOLDFAST_VERSION "\n";
    *exit_code = kExitOk;
  });
}

}  // namespace cli
