#include "snapshotter/image_mounter.h"

#include <glog/logging.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "cachecore/system/process.h"
#include "cachecore/system/spawn.h"
#include "host/instance/instance.h"
#include "host/mounts/own_mounts.h"

namespace snapshotter {
namespace {

using cachecore::Pipe;
using cachecore::Result;
using cachecore::SpawnOptions;
using cachecore::Status;
using Clock = std::chrono::steady_clock;

// The time that the command gets beyond its own limit before it is killed.
constexpr std::chrono::seconds kGrace{30};
constexpr size_t kOutputBytesMax = 64 << 10;

// Its standard error is ours: its messages go to this program's log.
Result<pid_t> Start(const std::vector<std::string>& argv, int output) {
  SpawnOptions options;
  options.argv = argv;
  options.output = output;
  options.errors = STDERR_FILENO;
  options.group = SpawnOptions::Group::kOwnSession;
  return cachecore::Spawn(options);
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

// How a command with --json has ended, by what it said of it.
Status EndOf(const std::string& said, int status, const std::string& what) {
  const nlohmann::json end = nlohmann::json::parse(said, nullptr, /*allow_exceptions=*/false);
  if (WIFSIGNALED(status)) {
    return Status(EIO, what + " was killed by signal " + std::to_string(WTERMSIG(status)));
  }
  if (WEXITSTATUS(status) == 0) return {};
  const bool is_said = end.is_object() && end.contains("message") && end["message"].is_string() &&
                       end.contains("errno") && end["errno"].is_number_integer();
  if (!is_said) {
    return Status(EIO, what + " failed with exit code " + std::to_string(WEXITSTATUS(status)) +
                           "; this program's log has what it said");
  }
  const std::string message = end["message"];
  const int error = end["errno"];
  // These would be said of the snapshot, and containerd draws conclusions from them.
  const bool is_of_snapshots =
      error <= 0 || error == ENOENT || error == EEXIST || error == EINVAL || error == EPERM;
  return Status(is_of_snapshots ? EIO : error, message);
}

}  // namespace

Result<bool> HoldfastMounter::IsMounted(const std::string& path) {
  ASSIGN_OR_RETURN(const host::Instance instance,
                   host::Instance::Make(options_.root.empty() ? host::DefaultRoot() : options_.root,
                                        options_.instance.empty() ? "default" : options_.instance));
  return host::IsMountedAt(instance, path);
}

std::vector<std::string> HoldfastMounter::Command(const char* verb) const {
  std::vector<std::string> argv = {options_.program, verb};
  if (!options_.root.empty()) argv.push_back("--root=" + options_.root);
  if (!options_.instance.empty()) argv.push_back("--instance=" + options_.instance);
  // Below the limit that Run() sets it, so that it ends by itself and says why.
  argv.push_back("--timeout=" + std::to_string(options_.timeout.count()) + "ms");
  argv.push_back("--json");
  return argv;
}

std::vector<std::string> HoldfastMounter::MountCommand(const ImageLayer& image,
                                                       const std::string& path) const {
  std::vector<std::string> argv = Command("mount");
  argv.push_back("--as=erofs");
  argv.push_back("--suid");  // The container's programs and devices, below a directory of root's.
  argv.push_back("--dev");
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
  ASSIGN_OR_RETURN(Pipe output, Pipe::Make());
  ASSIGN_OR_RETURN(const pid_t pid, Start(argv, output.writer.get()));
  output.writer.Reset();
  const std::optional<std::string> said =
      ReadUntilEnd(output.reader.get(), Clock::now() + options_.timeout + kGrace);
  if (!said) kill(pid, SIGKILL);
  const int status = cachecore::ReapChild(pid);
  const std::string what = argv[0] + " " + argv[1];
  if (!said) return Status(ETIMEDOUT, what + " did not end and was killed");
  return EndOf(*said, status, what);
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
