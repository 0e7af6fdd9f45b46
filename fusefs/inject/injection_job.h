// What holdfastd and holdfast-injectd send each other, over a SOCK_SEQPACKET socket.
//
// Model    a job names a thread that waits in a read of the cachefiles device, and the message that
//          the read is to give; or one that waits in a write into an object's file, and is to map
//          the window of ids.  Its report says what became of it; there is one for each job.
// Units    addresses of the reader's memory.
// See      docs/design.md "The cachefiles device".

#ifndef FUSEFS_INJECT_INJECTION_JOB_H_
#define FUSEFS_INJECT_INJECTION_JOB_H_

#include <linux/cachefiles.h>
#include <sys/types.h>

#include <cstdint>

namespace fusefs {

// The kernel reads four bytes at the address that an ioctl's argument is, before it asks a FUSE
// server.  So the ids that a program without the library gets are addresses of memory that can be
// read: the thread maps this window, of a size that is a power of two, at its first OPEN.
inline constexpr uint64_t kIdWindow = 0x60000000;
inline constexpr uint64_t kIdWindowSize = 4 << 20;

// The descriptor at which holdfast-injectd finds its socket.
inline constexpr int kInjectionSocket = 3;

struct InjectionJob {
  uint64_t serial = 0;
  uint64_t device = 0;  // The device's file system, as stat(2) gives it.
  uint64_t node = 0;    // Of the object's file; 0 for a message that opens none.
  int32_t thread = 0;
  uint32_t msg_id = 0;  // As the device's ioctls know it.
  uint32_t length = 0;  // Of the message; 0: the thread is in a write.
  char message[CACHEFILES_MSG_MAX_SIZE] = {};
};

enum class InjectionEnd : uint32_t {
  kStarted,  // The thread opens the file and ends its read without our help.
  kRefused,  // The message cannot be given to this reader.
  kMissed,   // The thread was not in its read any more.  The message was not given.
};

struct InjectionReport {
  uint64_t serial = 0;
  InjectionEnd end = InjectionEnd::kMissed;
  int32_t error = 0;     // Of kRefused: positive.
  char cause[256] = {};  // Of kRefused: a sentence.
};

}  // namespace fusefs

#endif  // FUSEFS_INJECT_INJECTION_JOB_H_
