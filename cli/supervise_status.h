// SuperviseStatus: the file that tells `holdfast status` what the supervisor sees.
//
// Model    one JSON object: "pid", "state" (running, stopping, stopped), "since_ms", "services":
// [{"name",
//          "pid" (0: none), "spare" (likewise), "state", "since_ms", "restarts", "retry_at_ms" (0: no retry waits),
//          "last_exit", "status", "fd_store": [names]}].  Non-ASCII bytes of texts become '?'.
// Units    milliseconds since 1970.
// Errors   none aloud: a file that can't be replaced stays as it was, and Write says so by its
// result. Threads  one thread only. Cost     one buffer, taken by the constructor; a text that
// would overflow it isn't written. Crash    replaced by rename: a reader sees the old or the new
// text whole.

#ifndef CLI_SUPERVISE_STATUS_H_
#define CLI_SUPERVISE_STATUS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/fd_store.h"

namespace cli {

// The room for texts of one service, and the longest of each.
inline constexpr size_t kLastExitBytesMax = 160;
inline constexpr size_t kStatusTextBytesMax = 256;

struct ServiceStatus {
  std::string_view name;
  pid_t pid;
  pid_t spare;  // 0: none that is fit.
  const char* state;
  int64_t since_ms;
  uint64_t restarts;
  int64_t retry_at_ms;
  std::string_view last_exit;
  std::string_view status;
  const FdStore* fd_store;
};

class SuperviseStatus {
 public:
  SuperviseStatus(std::string path, size_t services, size_t stored_fds);

  // Begin, Service for each, then Write.
  void Begin(pid_t pid, const char* state, int64_t since_ms);
  void Service(const ServiceStatus& service);
  bool Write();

 private:
  void Put(std::string_view text);
  void PutQuoted(std::string_view text);
  void PutNumber(int64_t number);

  const std::string path_;
  const std::string path_tmp_;
  std::vector<char> buffer_;
  size_t size_ = 0;
  bool first_service_ = true;
  bool overflow_ = false;
};

}  // namespace cli

#endif  // CLI_SUPERVISE_STATUS_H_
