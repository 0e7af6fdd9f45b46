#include "snapshotter/image_mounter.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <optional>

#include "cachecore/unique_fd.h"
#include "cli/instance.h"
#include "cli/own_mounts.h"

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using Clock = std::chrono::steady_clock;

// What the command gets beyond its own time limit before it is taken for one that hangs.
constexpr std::chrono::seconds kGrace{30};
constexpr size_t kOutputBytesMax = 64 << 10;

// No descriptor, mask or standard input of ours goes to the child; its output goes to `output`.
Result<pid_t> Spawn(const std::vector<std::string>& argv, int output) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, 1);
  posix_spawn_file_actions_adddup2(&files, output, 2);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, argv[0].c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return Status::FromErrno(error, "run " + argv[0]);
  return pid;
}

// What the child said by its end; nullopt when that did not come in time.  Daemons it starts have
// their own standard output, so the end of the output is the end of the command.
std::optional<std::string> ReadUntilEnd(int output, Clock::time_point deadline) {
  std::string said;
  char buffer[4096];
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd ready = {output, POLLIN, 0};
    const int count = poll(&ready, 1, std::max(0, static_cast<int>(left.count())));
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) return std::nullopt;
    const ssize_t n = read(output, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return said;
    if (said.size() < kOutputBytesMax) said.append(buffer, static_cast<size_t>(n));
  }
}

std::string LastLine(std::string said) {
  said.erase(said.find_last_not_of('\n') + 1);
  const size_t newline = said.rfind('\n');
  return newline == std::string::npos ? said : said.substr(newline + 1);
}

}  // namespace

Result<bool> HoldfastMounter::IsMounted(const std::string& path) {
  ASSIGN_OR_RETURN(const cli::Instance instance,
                   cli::Instance::Make(options_.root.empty() ? cli::DefaultRoot() : options_.root,
                                       options_.instance.empty() ? "default" : options_.instance));
  return cli::IsMountedAt(instance, path);
}

std::vector<std::string> HoldfastMounter::Command(const char* verb) const {
  std::vector<std::string> argv = {options_.program, verb};
  if (!options_.root.empty()) argv.push_back("--root=" + options_.root);
  if (!options_.instance.empty()) argv.push_back("--instance=" + options_.instance);
  return argv;
}

std::vector<std::string> HoldfastMounter::MountCommand(const ImageLayer& image,
                                                       const std::string& path) const {
  std::vector<std::string> argv = Command("mount");
  argv.push_back("--as=erofs");
  argv.push_back("--suid");  // The container's programs and devices, below a directory of root's.
  argv.push_back("--dev");
  argv.push_back("--timeout=" + std::to_string(options_.timeout.count()) + "ms");
  if (!options_.auth_file.empty()) argv.push_back("--auth-file=" + options_.auth_file);
  if (options_.plain_http.contains(image.registry)) argv.push_back("--plain-http");
  if (const auto mirrors = options_.mirrors.find(image.registry);
      mirrors != options_.mirrors.end()) {
    for (const std::string& mirror : mirrors->second) argv.push_back("--mirror=" + mirror);
  }
  argv.push_back("--verify=" + image.verity);
  argv.push_back("--merkle=" + image.merkle);
  argv.push_back("oci-blob://" + image.registry + "/" + image.repository + "@" + image.blob);
  argv.push_back(path);
  return argv;
}

Status HoldfastMounter::Run(const std::vector<std::string>& argv) const {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status::FromErrno(errno, "make a pipe");
  const UniqueFd output(ends[0]);
  UniqueFd input(ends[1]);
  ASSIGN_OR_RETURN(const pid_t pid, Spawn(argv, input.get()));
  input.Reset();
  const std::optional<std::string> said =
      ReadUntilEnd(output.get(), Clock::now() + options_.timeout + kGrace);
  if (!said) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  const std::string what = argv[0] + " " + argv[1];
  if (!said) return Status(ETIMEDOUT, what + " did not end and was killed");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const std::string line = LastLine(*said);
  if (line.empty()) return Status(EIO, what + " failed and did not say why");
  return Status(EIO, line);
}

Status HoldfastMounter::Mount(const ImageLayer& image, const std::string& path) {
  return Run(MountCommand(image, path));
}

Status HoldfastMounter::Unmount(const std::string& path) {
  std::vector<std::string> argv = Command("umount");
  argv.push_back(path);
  const Status status = Run(argv);
  if (status.ok()) return status;
  // The instance may have forgotten it.
  if (umount2(path.c_str(), UMOUNT_NOFOLLOW) != 0 && errno != EINVAL) return status;
  LOG(WARNING) << path << " was unmounted directly: " << status.message();
  return {};
}

}  // namespace snapshotter
