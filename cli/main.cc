#include <csignal>
#include <string_view>

#include "cli/command.h"
#include "cli/mount_helper.h"

int main(int argc, char** argv) {
  std::signal(SIGXFSZ,
              SIG_IGN);  // `ulimit -f` makes an error of a write, not an end of the command.
  std::signal(SIGCHLD, SIG_DFL);  // Ignored, it would let children's pids pass to others.
  const std::string_view path = argc > 0 ? argv[0] : "";
  const std::string_view name = path.substr(path.rfind('/') + 1);
  if (name.starts_with("mount.erofs")) return cli::RunErofsMountHelper(argc, argv);
  if (name == "mount.holdfast") return cli::RunHoldfastMountHelper(argc, argv);
  return cli::RunCommand(argc, argv);
}
