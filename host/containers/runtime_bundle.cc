#include "host/containers/runtime_bundle.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/bounded_call.h"
#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::CallInChild;
using cachecore::Deadline;
using cachecore::DigestHex;
using cachecore::DigestOf;
using cachecore::JsonField;
using cachecore::JsonString;
using cachecore::JsonStrings;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using cachecore::WriteFileAtomically;
using nlohmann::json;

constexpr size_t kCgroupDigits = 12;
constexpr size_t kHostNameBytesMax = 64;  // __NEW_UTS_LEN.
constexpr size_t kUserDatabaseBytesMax = 1 << 20;
constexpr char kDefaultPath[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// As much of it as the kernel takes, without a part of a character.
std::string HostNameOf(const std::string& name) {
  size_t size = std::min(name.size(), kHostNameBytesMax);
  while (size < name.size() && size > 0 && (name[size] & 0xc0) == 0x80) --size;
  return name.substr(0, size);
}

std::vector<std::string> SplitAt(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool IsId(const std::string& text) {
  constexpr unsigned long kIdMax = 4294967294;  // The next one means "none".
  return !text.empty() && text.size() <= 10 &&
         text.find_first_not_of("0123456789") == std::string::npos && std::stoul(text) <= kIdMax;
}

// The fields of the first line whose field `key` is `value`; none: an empty vector.
std::vector<std::string> FindLine(const std::string& text, size_t key, const std::string& value,
                                  size_t fields_min) {
  for (const std::string& line : SplitAt(text, '\n')) {
    std::vector<std::string> fields = SplitAt(line, ':');
    if (fields.size() >= fields_min && fields[key] == value) return fields;
  }
  return {};
}

json MountOf(const char* destination, const char* type, const char* source,
             std::vector<std::string> options) {
  return {{"destination", destination}, {"type", type}, {"source", source}, {"options", options}};
}

json BaseMounts() {
  return json::array(
      {MountOf("/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}),
       MountOf("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
       MountOf("/dev/pts", "devpts", "devpts",
               {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}),
       MountOf("/dev/shm", "tmpfs", "shm",
               {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
       MountOf("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
       MountOf("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}),
       MountOf("/sys/fs/cgroup", "cgroup", "cgroup",
               {"nosuid", "noexec", "nodev", "relatime", "ro"})});
}

json LinuxPart(const std::string& net) {
  json namespaces =
      json::array({{{"type", "pid"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}});
  if (net == "none") namespaces.push_back({{"type", "network"}});
  return {{"namespaces", namespaces},
          {"resources", {{"devices", json::array({{{"allow", false}, {"access", "rwm"}}})}}},
          {"maskedPaths",
           {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
            "/sys/firmware"}},
          {"readonlyPaths",
           {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}}};
}

json Capabilities() {
  const json kept = {"CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",
                     "CAP_MKNOD",   "CAP_NET_RAW",      "CAP_SETGID",           "CAP_SETUID",
                     "CAP_SETFCAP", "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
                     "CAP_KILL",    "CAP_AUDIT_WRITE"};
  return {{"bounding", kept}, {"effective", kept}, {"permitted", kept}};
}

// A later KEY=VALUE takes the place of an earlier one.
void SetEnvironment(std::vector<std::string>* env, const std::string& entry) {
  const std::string key = entry.substr(0, entry.find('=') + 1);
  std::erase_if(*env, [&key](const std::string& one) { return one.starts_with(key); });
  env->push_back(entry);
}

Result<std::vector<std::string>> Environment(const json& image, const BundleOptions& options) {
  std::vector<std::string> env = {kDefaultPath};
  if (options.terminal) SetEnvironment(&env, "TERM=xterm");
  for (const std::string& entry : JsonStrings(image, "Env")) {
    if (entry.find('=') != std::string::npos) SetEnvironment(&env, entry);
  }
  for (const std::string& entry : options.env) {
    if (entry.find('=') == std::string::npos || entry[0] == '=') {
      return Status(EINVAL, "--env " + entry + " is not KEY=VALUE");
    }
    SetEnvironment(&env, entry);
  }
  return env;
}

Result<json> VolumeMount(const std::string& volume) {
  const std::vector<std::string> parts = SplitAt(volume, ':');
  const bool is_well_formed = (parts.size() == 2 || (parts.size() == 3 && parts[2] == "ro")) &&
                              parts[0].starts_with('/') && parts[1].starts_with('/');
  if (!is_well_formed) {
    return Status(EINVAL, "--volume " + volume + " is not SRC:DST or SRC:DST:ro, absolute paths");
  }
  struct stat info;
  if (stat(parts[0].c_str(), &info) != 0) return Status::FromErrno(errno, "--volume " + parts[0]);
  std::vector<std::string> mount_options = {"rbind", "rprivate"};
  if (parts.size() == 3) mount_options.push_back("ro");
  return MountOf(parts[1].c_str(), "bind", parts[0].c_str(), mount_options);
}

Result<json> AllMounts(const BundleOptions& options) {
  json mounts = BaseMounts();
  if (options.net == "host") {
    for (const char* file : {"/etc/resolv.conf", "/etc/hosts"}) {
      if (access(file, R_OK) == 0) mounts.push_back(MountOf(file, "bind", file, {"rbind", "ro"}));
    }
  }
  for (const std::string& volume : options.volumes) {
    ASSIGN_OR_RETURN(json mount, VolumeMount(volume));
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

// A file of a foreign tree: no link leads out of it, and nothing but a file is opened, for that of
// a device may do something to the machine.  What can't be looked up there is not there.
Result<std::string> ReadInside(const std::string& tree, const char* path) {
  const UniqueFd root(open(tree.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return Status::FromErrno(errno, tree);
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const UniqueFd found(static_cast<int>(syscall(SYS_openat2, root.get(), path, &how, sizeof how)));
  if (!found.valid() && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) {
    return std::string();
  }
  struct stat info;
  if (!found.valid() || fstat(found.get(), &info) != 0) return Status::FromErrno(errno, path);
  if (!S_ISREG(info.st_mode)) return std::string();
  const std::string link = "/proc/self/fd/" + std::to_string(found.get());
  const UniqueFd fd(open(link.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, path);
  std::string text(kUserDatabaseBytesMax, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t n = read(fd.get(), text.data() + length, text.size() - length);
    if (n < 0) return Status::FromErrno(errno, path);
    if (n == 0) break;
    length += static_cast<size_t>(n);
  }
  text.resize(length);
  return text;
}

}  // namespace

Result<json> RuntimeUser(const std::string& user, const UserDatabase& names) {
  const std::string who = user.substr(0, user.find(':'));
  const std::string group =
      user.find(':') == std::string::npos ? "" : user.substr(user.find(':') + 1);
  json found = {{"uid", 0}, {"gid", 0}};
  std::string name = who.empty() ? "root" : who;
  const bool by_number = IsId(name);
  const std::vector<std::string> line = FindLine(names.passwd, by_number ? 2 : 0, name, 4);
  if (!line.empty() && IsId(line[2]) && IsId(line[3])) {
    found = {{"uid", std::stoul(line[2])}, {"gid", std::stoul(line[3])}};
    name = line[0];
  } else if (by_number) {
    found["uid"] = std::stoul(name);
  } else if (name != "root") {
    return Status(ENOENT, "the image's etc/passwd has no user '" + name + "'; use a number");
  }
  if (IsId(group)) {
    found["gid"] = std::stoul(group);
  } else if (!group.empty()) {
    const std::vector<std::string> group_line = FindLine(names.group, 0, group, 3);
    if (group_line.empty() || !IsId(group_line[2])) {
      return Status(ENOENT, "the image's etc/group has no group '" + group + "'; use a number");
    }
    found["gid"] = std::stoul(group_line[2]);
  } else {
    json additional = json::array();
    for (const std::string& one : SplitAt(names.group, '\n')) {
      const std::vector<std::string> fields = SplitAt(one, ':');
      if (fields.size() < 4 || !IsId(fields[2])) continue;
      const std::vector<std::string> members = SplitAt(fields[3], ',');
      if (std::find(members.begin(), members.end(), name) != members.end()) {
        additional.push_back(std::stoul(fields[2]));
      }
    }
    if (!additional.empty()) found["additionalGids"] = additional;
  }
  return found;
}

Result<json> RuntimeConfig(const std::string& name, const json& image_config,
                           const BundleOptions& options, const UserDatabase& names) {
  const json& image = JsonField(image_config, "config");
  std::vector<std::string> arguments = JsonStrings(image, "Entrypoint");
  const std::vector<std::string> command =
      options.command.empty() ? JsonStrings(image, "Cmd") : options.command;
  arguments.insert(arguments.end(), command.begin(), command.end());
  if (arguments.empty()) arguments = {"/bin/sh"};
  ASSIGN_OR_RETURN(
      const json user,
      RuntimeUser(options.user.empty() ? JsonString(image, "User") : options.user, names));
  ASSIGN_OR_RETURN(const std::vector<std::string> env, Environment(image, options));
  ASSIGN_OR_RETURN(const json mounts, AllMounts(options));
  const std::string directory = JsonString(image, "WorkingDir");
  json annotations = json::object();
  const json& labels = JsonField(image, "Labels");
  for (const auto& [key, value] : labels.items()) {
    if (!key.empty() && value.is_string()) annotations[key] = value;
  }
  const std::string stop_signal = JsonString(image, "StopSignal");
  if (!stop_signal.empty()) annotations["org.opencontainers.image.stopSignal"] = stop_signal;
  const std::string host = JsonString(image, "Hostname");
  return json{{"ociVersion", "1.0.2"},
              {"process",
               {{"terminal", options.terminal},
                {"user", user},
                {"args", arguments},
                {"env", env},
                {"cwd", directory.starts_with('/') ? directory : "/" + directory},
                {"capabilities", Capabilities()},
                {"noNewPrivileges", true}}},
              {"root", {{"path", "rootfs"}, {"readonly", false}}},
              {"hostname", HostNameOf(host.empty() ? name : host)},
              {"mounts", mounts},
              {"annotations", annotations},
              {"linux", LinuxPart(options.net)}};
}

Status CheckBundleOptions(const BundleOptions& options) {
  RETURN_IF_ERROR(Environment(json::object(), options).status());
  return AllMounts(options).status();
}

Status WriteBundle(const std::string& bundle, const std::string& name,
                   const std::string& image_config, const BundleOptions& options,
                   std::chrono::milliseconds timeout) {
  const json image = json::parse(image_config, nullptr, false);
  if (!image.is_object()) return Status(EINVAL, "the image's config is no JSON object");
  const std::string tree = bundle + "/rootfs";
  const Deadline deadline(timeout);
  const auto read = [&](const char* path) {
    return CallInChild([&] { return ReadInside(tree, path); }, deadline);
  };
  UserDatabase names;
  ASSIGN_OR_RETURN(names.passwd, read("etc/passwd"));
  ASSIGN_OR_RETURN(names.group, read("etc/group"));
  ASSIGN_OR_RETURN(json config, RuntimeConfig(name, image, options, names));
  // By their names alone, containers of two instances would share a cgroup.
  config["linux"]["cgroupsPath"] =
      "/holdfast-" + name + "-" + DigestHex(DigestOf(bundle)).substr(0, kCgroupDigits);
  return WriteFileAtomically(bundle + "/config.json", JsonText(config, 2) + "\n", 0600);
}

}  // namespace host
