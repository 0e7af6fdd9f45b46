// PidStamp: a process by its number and by when it was started, as files name it.
//
// Model    a number passes to another process once its owner has ended; the two together do not.
//          As text: the number, one other character, and the start in the kernel's ticks since
//          boot.  A text without a start, as earlier versions wrote it, fits each process of that
//          number.
// Errors   none: a text that is none gives a stamp that fits no process.
// Threads  thread-safe: no state.
// See      proc(5): starttime

#ifndef CACHECORE_SYSTEM_PID_STAMP_H_
#define CACHECORE_SYSTEM_PID_STAMP_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cachecore {

struct PidStamp {
  pid_t pid = 0;         // 0: none.
  uint64_t started = 0;  // 0: not known.
};

inline constexpr size_t kPidStampBytesMax = 48;

// When a process was started; nothing when it is gone.
std::optional<uint64_t> ProcessStart(pid_t pid);
// Of this process, with `separator` between the two.
std::string OwnPidStamp(char separator);
// The same of any process, without a final null; returns the length.  Async-signal-safe.  REQUIRES:
// kPidStampBytesMax of room.
size_t PutPidStamp(pid_t pid, char separator, char* out);
PidStamp ParsePidStamp(std::string_view text);
// Whether the process is there.  To act on it, pin it by its number first and then ask this.
bool IsThere(const PidStamp& stamp);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_PID_STAMP_H_
