#include <csignal>

#include "cli/command.h"

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // `ulimit -f` makes an error of a write, not an end of the command.
  std::signal(SIGCHLD, SIG_DFL);  // Ignored, it would let children's pids pass to others.
  return cli::RunCommand(argc, argv);
}
