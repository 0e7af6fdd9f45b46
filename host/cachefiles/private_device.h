// Gives this process a /dev/cachefiles of its own.
//
// Model    a mount namespace in which a bind mount of a cachefiles device is at /dev/cachefiles.
//          Where the host has no such file, /dev is a tmpfs with the host's entries and this file.
//          What was shared with other mount namespaces stays shared; only the mounts made here are
//          not.
// Errors   one sentence that names the object; the process may be in the new namespace already.
// Threads  a process of one thread.
// Owns     nothing: the namespace ends with the last process in it.
// See      docs/cachefiles-compat.md; holdfast-cachefiles-run(1)

#ifndef HOST_CACHEFILES_PRIVATE_DEVICE_H_
#define HOST_CACHEFILES_PRIVATE_DEVICE_H_

#include <string>

#include "cachecore/base/status.h"

namespace host {

// Where programs of the kernel's cachefiles mode look for the device.
inline constexpr char kCachefilesPath[] = "/dev/cachefiles";

// `device`: the path of a holdfastd's cachefiles device.
cachecore::Status EnterWithDevice(const std::string& device);

}  // namespace host

#endif  // HOST_CACHEFILES_PRIVATE_DEVICE_H_
