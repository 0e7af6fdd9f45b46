// libholdfast-cachefiles.so: lets a dynamic program use the device as it would use the kernel's.
//
// Model    interposes reads and ioctl(READ_COMPLETE).  A read of the device takes the message, and
//          of an OPEN opens the object's file in this process and puts its number into the message.
//          READ_COMPLETE passes a pointer where the program passed the id.  These calls on any other
//          file go to the next library that has them, mostly the C library, whose reads a thread can
//          be cancelled in.
// Errors   the kernel's, in errno.
// Threads  any; no state but the next library's functions, found when the library is loaded.
// See      docs/cachefiles-compat.md; holdfast(1) "holdfast cachefiles-run".

#include <dlfcn.h>
#include <linux/cachefiles.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdarg>
#include <cstddef>
#include <cstring>

#include "fusefs/cachefiles/preload/holdfast/cachefiles.h"

namespace {

constexpr size_t kLargestMessage = CACHEFILES_MSG_MAX_SIZE;

// A function of the next library.  Null before this library is set up, when a call is the kernel's.
template <typename Function>
class Next {
 public:
  explicit Next(const char* name)
      : function_(reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name))) {}
  template <typename... Arguments>
  auto Call(long number, Arguments... arguments) const {
    using Returned = decltype(function_(arguments...));
    if (function_ != nullptr) return function_(arguments...);
    return static_cast<Returned>(syscall(number, arguments...));
  }

 private:
  Function* function_;
};

const Next<ssize_t(int, void*, size_t)> next_read("read");
const Next<ssize_t(int, void*, size_t, off_t)> next_pread("pread");
const Next<ssize_t(int, const iovec*, int)> next_readv("readv");
const Next<int(int, unsigned long, ...)> next_ioctl("ioctl");

// Into one buffer first: the file's number may lie on a border.
ssize_t ReadDeviceInto(int fd, const iovec* parts, int count) {
  size_t room = 0;
  for (int i = 0; i < count; ++i) room += parts[i].iov_len;
  char message[kLargestMessage];
  const ssize_t got =
      holdfast_cachefiles_read_device(fd, message, room < sizeof(message) ? room : sizeof(message));
  size_t done = 0;
  for (int i = 0; i < count && static_cast<ssize_t>(done) < got; ++i) {
    const size_t left = static_cast<size_t>(got) - done;
    const size_t part = parts[i].iov_len < left ? parts[i].iov_len : left;
    std::memcpy(parts[i].iov_base, message + done, part);
    done += part;
  }
  return got;
}

}  // namespace

// The names and types of the C library.
// NOLINTBEGIN(readability-identifier-naming)
#define HOLDFAST_EXPORT extern "C" __attribute__((visibility("default")))

HOLDFAST_EXPORT ssize_t read(int fd, void* buffer, size_t size) {
  if (holdfast_cachefiles_is_device(fd)) {
    return holdfast_cachefiles_read_device(fd, buffer, size);
  }
  return next_read.Call(SYS_read, fd, buffer, size);
}

HOLDFAST_EXPORT ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room) {
  if (size > room) __builtin_trap();
  return read(fd, buffer, size);
}

HOLDFAST_EXPORT ssize_t pread(int fd, void* buffer, size_t size, off_t offset) {
  if (holdfast_cachefiles_is_device(fd)) {
    return holdfast_cachefiles_read_device(fd, buffer, size);
  }
  return next_pread.Call(SYS_pread64, fd, buffer, size, offset);
}

HOLDFAST_EXPORT ssize_t pread64(int fd, void* buffer, size_t size, off64_t offset) {
  return pread(fd, buffer, size, offset);
}

HOLDFAST_EXPORT ssize_t __pread_chk(int fd, void* buffer, size_t size, off_t offset, size_t room) {
  if (size > room) __builtin_trap();
  return pread(fd, buffer, size, offset);
}

HOLDFAST_EXPORT ssize_t __pread64_chk(int fd, void* buffer, size_t size, off64_t offset,
                                      size_t room) {
  return __pread_chk(fd, buffer, size, offset, room);
}

HOLDFAST_EXPORT ssize_t readv(int fd, const iovec* parts, int count) {
  if (holdfast_cachefiles_is_device(fd)) return ReadDeviceInto(fd, parts, count);
  return next_readv.Call(SYS_readv, fd, parts, count);
}

HOLDFAST_EXPORT int ioctl(int fd, unsigned long command, ...) noexcept {
  va_list arguments;
  va_start(arguments, command);
  const unsigned long argument = va_arg(arguments, unsigned long);
  va_end(arguments);
  if (command == CACHEFILES_IOC_READ_COMPLETE && holdfast_cachefiles_is_object(fd)) {
    return holdfast_cachefiles_complete_object(fd, static_cast<uint32_t>(argument));
  }
  return next_ioctl.Call(SYS_ioctl, fd, command, argument);
}
// NOLINTEND(readability-identifier-naming)
