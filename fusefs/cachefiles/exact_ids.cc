#include "fusefs/cachefiles/exact_ids.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "cachecore/system/pid_stamp.h"
#include "fusefs/inject/proc_files.h"

namespace fusefs {

using cachecore::PidStamp;

int ExactIds::Register(pid_t caller) {
  if (!MayAdministrate(caller)) return -EPERM;
  const std::optional<uint64_t> started = cachecore::ProcessStart(caller);
  if (!started) return -ESRCH;
  for (const PidStamp& other : memory_->completers()) {
    if (!IsThere(other)) memory_->EraseCompleter(other.pid);
  }
  memory_->PutCompleter({caller, *started});
  return 0;
}

bool ExactIds::AreFor(pid_t thread) const {
  const std::vector<PidStamp> completers = memory_->completers();
  return std::ranges::any_of(completers, [thread](const PidStamp& completer) {
    return AreInOneMountNamespace(completer.pid, thread) && IsThere(completer);
  });
}

}  // namespace fusefs
