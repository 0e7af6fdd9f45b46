#include "host/instance/privileges.h"

#include <linux/capability.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <sstream>

#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::ReadFile;
using cachecore::Result;
using cachecore::Status;

constexpr uint64_t kAllUids = 0xffffffff;  // How many the machine's own namespace has.

}  // namespace

bool UidMapHas(std::string_view uid_map, uid_t uid) {
  std::istringstream lines{std::string(uid_map)};
  uint64_t inside = 0, outside = 0, count = 0;
  while (lines >> inside >> outside >> count) {
    if (uid >= inside && uid - inside < count) return true;
  }
  return false;
}

bool HasEffectiveCapability(std::string_view status, int capability) {
  const size_t at = status.find("\nCapEff:");
  unsigned long long effective = 0;
  if (at == std::string_view::npos ||
      std::sscanf(std::string(status.substr(at)).c_str(), " CapEff: %llx", &effective) != 1) {
    return true;
  }
  return (effective >> capability & 1) != 0;
}

bool IsInUserNamespace() {
  const Result<std::string> map = ReadFile("/proc/self/uid_map");
  uint64_t inside = 0, outside = 0, count = 0;
  if (!map.ok() || !(std::istringstream(*map) >> inside >> outside >> count)) return false;
  return inside != 0 || outside != 0 || count != kAllUids;
}

bool IsMappedUid(uid_t uid) {
  const Result<std::string> map = ReadFile("/proc/self/uid_map");
  return !map.ok() || UidMapHas(*map, uid);
}

Status RequireRoot(const std::string& what) {
  if (geteuid() == 0) return {};
  return Status(EPERM, what + " needs root; use sudo");
}

Status RequireMountRights(const std::string& what) {
  RETURN_IF_ERROR(RequireRoot(what));
  const Result<std::string> status = ReadFile("/proc/self/status");
  if (!status.ok()) {
    return Status(status.status().error(), status.status().message() + ": is /proc mounted?");
  }
  if (HasEffectiveCapability(*status, CAP_SYS_ADMIN)) return {};
  return Status(EPERM, what +
                           " needs the capability CAP_SYS_ADMIN, which this root does not have; "
                           "a container has it with --cap-add SYS_ADMIN --device /dev/fuse");
}

}  // namespace host
