// NotifyMessage: what one sd_notify datagram asks of the service manager.
//
// Model    lines "KEY=value" as systemd reads them: LF and CR end a line, empty lines are nothing,
//          the first of a repeated key counts (of READY=1 and STOPPING=1 the last), unknown keys
//          and MAINPID= are passed over.  The views point into the datagram.
// Errors   none: a datagram that can't be trusted as text is no message at all.
// Threads  immutable value; the parser is pure and allocates nothing.
// See      sd_notify(3), systemd 252 src/core/service.c and manager.c.

#ifndef HOST_NOTIFY_NOTIFY_MESSAGE_H_
#define HOST_NOTIFY_NOTIFY_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace host {

inline constexpr size_t kNotifyDatagramBytesMax = 4096;
inline constexpr size_t kFdNameBytesMax = 255;
inline constexpr std::string_view kDefaultFdName = "stored";

struct NotifyMessage {
  bool ready = false;
  bool stopping = false;
  bool watchdog_ping = false;     // WATCHDOG=1
  bool watchdog_trigger = false;  // WATCHDOG=trigger: the service says itself that it is broken.
  // BARRIER=1.  A barrier says only "processed so far": the rest of its datagram is void, as with
  // systemd, so no other field is set.
  bool barrier = false;
  bool fd_store = false;
  bool fd_store_remove = false;
  bool fd_poll = true;                      // False with FDPOLL=0.
  std::optional<std::string_view> fd_name;  // Absent also when the name sent is not a valid one.
  std::optional<std::string_view> status;   // Present and empty clears it.
  std::optional<uint64_t> watchdog_usec;    // 0 turns the watchdog off.
};

// nullopt: empty, longer than kNotifyDatagramBytesMax, or with a NUL that is not its last byte.
std::optional<NotifyMessage> ParseNotifyMessage(std::string_view datagram);

// At most 255 printable ASCII characters without ':', which separates names in LISTEN_FDNAMES.
bool IsValidFdName(std::string_view name);

}  // namespace host

#endif  // HOST_NOTIFY_NOTIFY_MESSAGE_H_
