#include "cachecore/environment/capabilities.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace cachecore {

void DropBoundingSet() {
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
    prctl(PR_CAPBSET_DROP, capability);
  }
}

Status SetCapabilities(uint64_t wanted) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int i = 0; i < 2; ++i) {
    data[i].effective = data[i].permitted = static_cast<uint32_t>(wanted >> (32 * i));
  }
  if (syscall(SYS_capset, &header, data) == 0) return Status();
  return Status::FromErrno(errno, "give up capabilities");
}

Status KeepCapabilities(uint64_t kept) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return Status::FromErrno(errno, "read capabilities");
  DropBoundingSet();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return Status::FromErrno(errno, "set no_new_privs");
  }
  const uint64_t held = data[0].permitted | uint64_t{data[1].permitted} << 32;
  return SetCapabilities(held & kept);
}

}  // namespace cachecore
