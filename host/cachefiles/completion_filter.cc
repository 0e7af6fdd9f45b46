#include "host/cachefiles/completion_filter.h"

#include <linux/cachefiles.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>

namespace host {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr size_t kMostInstructions = 256;  // libseccomp makes some ten.

// libseccomp reports a negative errno.
Status Check(int result) {
  return result >= 0 ? Status()
                     : Status::FromErrno(-result, "making a filter of system calls by libseccomp");
}

// As instructions in a file of memory.
Result<UniqueFd> MakeFilter() {
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(seccomp_init(SCMP_ACT_ALLOW),
                                                                seccomp_release);
  if (!filter) return Status(ENOMEM, "making a filter of system calls by libseccomp");
  // Programs of another word size use no device of ours.
  RETURN_IF_ERROR(Check(seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW)));
  // The kernel looks at the lower half of the command only.
  RETURN_IF_ERROR(Check(seccomp_rule_add(filter.get(), SCMP_ACT_NOTIFY, SCMP_SYS(ioctl), 1,
                                         SCMP_A1_64(SCMP_CMP_MASKED_EQ, uint64_t{UINT32_MAX},
                                                    uint64_t{CACHEFILES_IOC_READ_COMPLETE}))));
  UniqueFd file(memfd_create("holdfast-filter", MFD_CLOEXEC));
  if (!file.valid()) return Status::FromErrno(errno, "memfd_create");
  RETURN_IF_ERROR(Check(seccomp_export_bpf(filter.get(), file.get())));
  return file;
}

}  // namespace

// Without libseccomp's own load, which in Debian 12 does not know SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
// a signal must not end a call with EINTR that is being made.
Result<UniqueFd> InstallCompletionFilter() {
  ASSIGN_OR_RETURN(const UniqueFd file, MakeFilter());
  std::array<sock_filter, kMostInstructions> instructions;
  const ssize_t size = pread(file.get(), instructions.data(), sizeof(instructions), 0);
  if (size <= 0 || static_cast<size_t>(size) == sizeof(instructions)) {
    return Status(EIO, "the filter that libseccomp has made cannot be read");
  }
  const sock_fprog program = {
      static_cast<unsigned short>(static_cast<size_t>(size) / sizeof(sock_filter)),
      instructions.data()};
  UniqueFd listener(static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                             SECCOMP_FILTER_FLAG_NEW_LISTENER |
                                                 SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV |
                                                 SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                                             &program)));
  if (listener.valid()) return listener;
  if (errno == EBUSY) {
    return Status(EBUSY,
                  "another process listens to this one's system calls already; --exact-ids "
                  "cannot be used below itself, or in a container that has a supervisor");
  }
  return Status::FromErrno(errno,
                           "setting a filter of system calls, which needs Linux 5.19 and "
                           "CAP_SYS_ADMIN");
}

}  // namespace host
