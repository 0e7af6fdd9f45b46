// What programs and the device say to each other beside the kernel's own interface.
//
// Model    holdfast/cachefiles.h has what the preloaded library and programs that link it use, here
//          by the tree's own names.  The rest is for holdfast-injectd and the completer.
// See      docs/cachefiles-compat.md.

#ifndef FUSEFS_CACHEFILES_PRELOAD_DEVICE_CALLS_H_
#define FUSEFS_CACHEFILES_PRELOAD_DEVICE_CALLS_H_

#include <linux/ioctl.h>

#include <cstdint>

#include "fusefs/cachefiles/preload/holdfast/cachefiles.h"

namespace fusefs {

inline constexpr uint64_t kDeviceInode = HOLDFAST_CACHEFILES_DEVICE;
// Inode numbers of the objects' files: the object_id is below this.
inline constexpr uint64_t kObjectInodes = HOLDFAST_CACHEFILES_OBJECT << 32;
inline constexpr int64_t kReadAndOpen = HOLDFAST_CACHEFILES_READ_AND_OPEN;
// Bit of a node id that names an object's file; the object_id is below it.
inline constexpr uint64_t kObjectNode = uint64_t{1} << 32;

struct NodeHandle : holdfast_cachefiles_handle {
  NodeHandle() : holdfast_cachefiles_handle{12, HOLDFAST_CACHEFILES_HANDLE_TYPE, 0, 0, 0} {}
};

using FailedOpen = holdfast_cachefiles_failed_open;
inline constexpr unsigned int kOpenFailed = HOLDFAST_CACHEFILES_OPEN_FAILED;
// The same without memory: the argument is msg_id << 32 | error.
inline constexpr unsigned int kOpenFailedValue = _IO(0x98, 0x83);
inline constexpr unsigned int kReadComplete = HOLDFAST_CACHEFILES_READ_COMPLETE;

// Setting this attribute of the device says that the caller makes the completions of the programs
// in its mount namespace, as the library does: their ids need be no addresses.
inline constexpr char kExactIdsName[] = "user.holdfast.exact-ids";

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_PRELOAD_DEVICE_CALLS_H_
