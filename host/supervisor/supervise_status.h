// SuperviseStatus: the file that tells `holdfast status` what the supervisor sees.
//
// Model    one JSON object: "pid", "standby" (0: none), "why_no_standby" (for people), "takeovers"
//          (how often a standby has become the supervisor), "version" (of its program; one that
//          has it exchanges its program on SIGUSR2), "state" (running, stopping, stopped),
//          "since_ms", "services": [{"name", "pid" (0: none), "spare" (likewise), "state",
//          "since_ms", "restarts", "retry_at_ms" (0: no retry waits), "last_exit", "status",
//          "ends" (by reason), "pauses" (by bucket of ServiceTotals), "pauses_us", "fd_store":
//          [names]}].  Non-ASCII bytes of texts become '?'.
// Units    milliseconds since 1970.
// Errors   a file that can't be replaced stays as it was, and Write returns false.
// Threads  one thread only.
// Cost     one buffer, taken by the constructor; a text that would overflow it isn't written.
// Crash    replaced by rename: a reader sees the old or the new text whole.
// See      host/supervisor/supervise_fields.h for the names of the fields.

#ifndef HOST_SUPERVISOR_SUPERVISE_STATUS_H_
#define HOST_SUPERVISOR_SUPERVISE_STATUS_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/totals/totals.h"
#include "host/notify/stored_descriptors.h"

namespace host {

// The room for texts of one service, and the longest of each.
inline constexpr size_t kLastExitBytesMax = 160;
inline constexpr size_t kStatusTextBytesMax = 256;

enum class EndReason { kSignal, kExit, kEnded, kHung, kNotStarted, kUnknown };

// By EndReason.
inline constexpr std::array<const char*, 6> kEndReasonNames = {"signal", "exit",        "ended",
                                                               "hung",   "not_started", "unknown"};

// How a service has ended, and how long it was away each time: from a death to the moment at which
// the next process serves.
struct ServiceTotals {
  std::array<uint64_t, kEndReasonNames.size()> ends{};
  std::array<uint64_t, cachecore::TimeTotals::kSeconds.size() + 1> pauses{};  // By bucket.
  uint64_t pauses_us = 0;

  void NoteEnd(EndReason reason) { ++ends[static_cast<size_t>(reason)]; }
  void NotePause(cachecore::Duration took) {
    ++pauses[cachecore::TimeTotals::BucketOf(took)];
    pauses_us +=
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  }
};

struct ServiceStatus {
  std::string_view name;
  pid_t pid;
  pid_t spare;  // 0: none that is fit.
  const char* state;
  int64_t since_ms;
  uint64_t restarts;
  int64_t retry_at_ms;
  ServiceTotals totals;
  std::string_view last_exit;
  std::string_view status;
  const StoredDescriptors* fd_store;
};

struct SupervisorStatus {
  pid_t pid;
  pid_t standby;  // 0: none.
  std::string_view why_no_standby;
  uint64_t takeovers;
  uint64_t takeovers_before;  // Of earlier supervisors.
  uint64_t exchanges_refused;
  std::string_view why_not_exchanged;
  const char* state;
  int64_t since_ms;
};

class SuperviseStatus {
 public:
  SuperviseStatus(std::string path, size_t services, size_t stored_fds);

  // Begin, Service for each, then Write.  False, with errno, when it could not be written.
  void Begin(const SupervisorStatus& supervisor);
  void Service(const ServiceStatus& service);
  bool Write();
  // Removes what Write keeps beside the file so that it needs no room on a full disk.
  void RemoveTemporary();

 private:
  void PutTotals(const ServiceTotals& totals);
  bool WriteBeside() const;
  void Put(std::string_view text);
  void PutField(std::string_view before, std::string_view name);
  void PutQuoted(std::string_view text);
  void PutNumber(int64_t number);

  const std::string path_;
  const std::string path_tmp_;
  std::vector<char> buffer_;
  size_t size_ = 0;
  size_t file_bytes_ = 0;  // The most that a file has had.
  bool first_service_ = true;
  bool overflow_ = false;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_SUPERVISE_STATUS_H_
