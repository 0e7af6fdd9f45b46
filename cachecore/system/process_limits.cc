#include "cachecore/system/process_limits.h"

#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

namespace cachecore {
namespace {

// RocksDB's table files and logs, and the program's own logs, stay below it.
constexpr uint64_t kFileBytesMin = uint64_t{1} << 30;

rlimit Raise(__rlimit_resource_t resource) {
  rlimit limit = {};
  if (getrlimit(resource, &limit) != 0) return {RLIM_INFINITY, RLIM_INFINITY};
  limit.rlim_cur = limit.rlim_max;
  setrlimit(resource, &limit);
  return limit;
}

}  // namespace

void RaiseDescriptorLimit() {
  Raise(RLIMIT_NOFILE);
  std::signal(SIGXFSZ, SIG_IGN);
}

Result<std::thread> StartThread(const std::string& purpose, std::function<void()> work) {
  try {
    return std::thread(std::move(work));
  } catch (const std::system_error& error) {
    return Status(EAGAIN, "a thread for " + purpose +
                              " cannot be started: " + error.code().message() +
                              "; raise the limit of processes (ulimit -u, TasksMax= of the unit, "
                              "pids.max of the cgroup), or free memory");
  }
}

Status RaiseProcessLimits() {
  RaiseDescriptorLimit();
  const rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_FSIZE, &all) == 0) return {};
  const rlimit limit = Raise(RLIMIT_FSIZE);
  if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= kFileBytesMin) return {};
  return Status(EFBIG, "files may have " + std::to_string(limit.rlim_max) +
                           " bytes at most (ulimit -f), too few for a cache; raise the limit: "
                           "ulimit -H -f unlimited");
}

}  // namespace cachecore
