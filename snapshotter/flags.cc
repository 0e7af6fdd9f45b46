#include "snapshotter/flags.h"

#include <gflags/gflags.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <utility>

#include "cachecore/base/parse_text.h"

DEFINE_string(socket, "/run/holdfast-snapshotter/snapshotter.sock",
              "listen on this Unix socket; the address in containerd's proxy_plugins");
DEFINE_string(root, "/var/lib/holdfast-snapshotter", "keep snapshots and their records there");
DEFINE_string(holdfast, "",
              "the command that mounts images; by default the one beside this program or on $PATH");
DEFINE_string(instance, "default", "the Holdfast instance that the images are mounted in");
DEFINE_string(holdfast_root, "", "its --root; by default $HOLDFAST_ROOT or /");
DEFINE_string(auth_file, "", "credentials for registries, as docker's config.json has them");
DEFINE_string(plain_http, "", "registries to be asked without TLS, separated by commas");
DEFINE_string(mirrors, "",
              "REGISTRY=MIRROR pairs, separated by commas: registries that have the same images");
DEFINE_string(timeout, "30s", "how long a mount waits for the registry's first answer");

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

bool IsProgram(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

Result<std::string> FindHoldfast() {
  if (!FLAGS_holdfast.empty()) {
    if (FLAGS_holdfast[0] == '/' && IsProgram(FLAGS_holdfast)) return FLAGS_holdfast;
    return Status(EINVAL,
                  "--holdfast=" + FLAGS_holdfast + " is not the absolute path of a program");
  }
  std::error_code error;
  const std::filesystem::path here =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const char* const path = std::getenv("PATH");
  std::vector<std::string> folders = {here.string(), (here.parent_path() / "bin").string()};
  std::istringstream stream(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(stream, folder, ':');) folders.push_back(folder);
  for (const std::string& folder : folders) {
    if (IsProgram(folder + "/holdfast")) return folder + "/holdfast";
  }
  return Status(ENOENT,
                "the command holdfast is neither beside this program nor on $PATH; say where "
                "with --holdfast");
}

Status CheckAbsolute(const char* flag, const std::string& path) {
  if (!path.empty() && path[0] == '/') return {};
  return Status(EINVAL, std::string(flag) + "=" + path + " is not an absolute path");
}

}  // namespace

Result<std::map<std::string, std::vector<std::string>>> ParseMirrors(const std::string& text) {
  std::map<std::string, std::vector<std::string>> mirrors;
  for (const std::string& pair : SplitAtCommas(text)) {
    const size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == pair.size()) {
      return Status(EINVAL, "--mirrors: \"" + pair + "\" is not REGISTRY=MIRROR");
    }
    mirrors[pair.substr(0, equals)].push_back(pair.substr(equals + 1));
  }
  return mirrors;
}

Result<Options> OptionsFromFlags() {
  RETURN_IF_ERROR(CheckAbsolute("--socket", FLAGS_socket));
  RETURN_IF_ERROR(CheckAbsolute("--root", FLAGS_root));
  if (!FLAGS_auth_file.empty()) {
    RETURN_IF_ERROR(CheckAbsolute("--auth-file", FLAGS_auth_file));
  }
  Options options;
  options.socket = FLAGS_socket;
  options.root = FLAGS_root;
  ASSIGN_OR_RETURN(options.holdfast.program, FindHoldfast());
  options.holdfast.instance = FLAGS_instance;
  options.holdfast.root = FLAGS_holdfast_root;
  options.holdfast.auth_file = FLAGS_auth_file;
  for (const std::string& registry : SplitAtCommas(FLAGS_plain_http)) {
    options.holdfast.plain_http.insert(registry);
  }
  ASSIGN_OR_RETURN(options.holdfast.mirrors, ParseMirrors(FLAGS_mirrors));
  Result<cachecore::Duration> timeout = cachecore::ParseDuration(FLAGS_timeout);
  if (!timeout.ok()) return std::move(timeout).status().WithContext("--timeout");
  options.holdfast.timeout = std::chrono::ceil<std::chrono::milliseconds>(*timeout);
  if (options.holdfast.timeout.count() <= 0)
    return Status(EINVAL, "--timeout must be at least 1ms");
  return options;
}

}  // namespace snapshotter
