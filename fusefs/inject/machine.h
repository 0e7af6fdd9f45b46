// The part of an injection that depends on the machine: registers and instructions.
//
// Model    the code runs in the reader, after its read and in its place, on data of its own: it
//          maps the window of ids if need be, opens the object's file, writes the descriptor's
//          number into the message, restores each register and continues after the read, whose
//          result is then the message's length.  A window that cannot be mapped, or a file that
//          cannot be opened, is said to the device by kOpenFailedValue, and the errno is the
//          read's.  So the thread needs nothing of its tracer once its registers are set.  The code
//          is the same for each injection.  x86-64 and arm64.
// Errors   EOPNOTSUPP for another machine, and for a thread in another mode of this one.
// Threads  GetRegisters and SetRegisters: the thread's tracer.
// See      fusefs/inject/injection.h

#ifndef FUSEFS_INJECT_MACHINE_H_
#define FUSEFS_INJECT_MACHINE_H_

#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <string_view>

#include "cachecore/base/status.h"
#include "fusefs/cachefiles/preload/device_calls.h"

namespace fusefs {

#if defined(__x86_64__) || defined(__aarch64__)
inline constexpr bool kKnowsMachine = true;
using Registers = user_regs_struct;
#else
inline constexpr bool kKnowsMachine = false;
struct Registers {};
#endif

inline constexpr size_t kCodeDataSize = 152;
// Behind the window of ids, in the same mapping.
inline constexpr size_t kCodeDataRoom = 64 << 10;

// What the code reads.  The offsets are in its text too.
struct CodeData {
  NodeHandle handle;              // Of the object's file.
  uint64_t fd_addresses[4] = {};  // Of the bytes of the descriptor's number, in the message.
  uint64_t length = 0;            // What the read gives.
  uint64_t failed = 0;            // The argument of kOpenFailedValue without the errno.
  uint64_t command = kOpenFailedValue;
  uint64_t device_fd = 0;   // The reader's.
  uint64_t opens_file = 0;  // 0: the message has none.
  uint64_t saved[7] = {};   // The registers that are restored; the last one is where to continue.
};

cachecore::Result<Registers> GetRegisters(pid_t thread);
cachecore::Status SetRegisters(pid_t thread, const Registers& registers);
// What the system call that has just ended returns.
int64_t ResultOf(const Registers& registers);
void SetResult(int64_t result, Registers* registers);

// Its instructions, for any address.
std::string_view InjectedCode();
// `registers`: those at the end of the read.
void Save(const Registers& registers, CodeData* data);
enum class CodeEntry {
  kWindow,  // Maps the window, and does nothing else.
  kMaps,    // Maps the window first.
  kOpens,
};
// As the code at `code` expects them.
Registers AtCode(uint64_t code, uint64_t data, CodeEntry entry, Registers registers);

}  // namespace fusefs

#endif  // FUSEFS_INJECT_MACHINE_H_
