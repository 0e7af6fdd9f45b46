#include "fusefs/inject/client_directory.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <future>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "cachecore/system/process_limits.h"
#include "fusefs/inject/proc_files.h"

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

std::atomic<int> unanswered = 0;

Status LastError(const std::string& path) { return Status::FromErrno(errno, path); }

// `path` from a link of the thread in /proc, which needs no file system to answer.
Result<UniqueFd> OpenFrom(pid_t thread, const std::string& link, const std::string& path,
                          uint64_t resolve) {
  const UniqueFd start(open(ProcPath(thread, link).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!start.valid()) return LastError(path);
  open_how how = {};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = resolve;
  UniqueFd opened(
      static_cast<int>(syscall(SYS_openat2, start.get(), path.c_str(), &how, sizeof(how))));
  if (!opened.valid()) return LastError(path);
  return opened;
}

// "/proc/self/cwd/below" is "cwd" and "./below".  Nullopt for a path that begins in no such link.
std::optional<std::pair<std::string, std::string>> SplitLink(std::string_view path) {
  std::string link;
  for (const std::string_view place : {"/proc/self/", "/proc/thread-self/", "/dev/fd/"}) {
    if (!path.starts_with(place)) continue;
    link = place == "/dev/fd/" ? "fd/" : "";
    path.remove_prefix(place.size());
    break;
  }
  if (link.empty() && path.starts_with("fd/")) {
    link = "fd/";
    path.remove_prefix(link.size());
  }
  const size_t size = std::min(path.find('/'), path.size());
  const std::string_view name = path.substr(0, size);
  const bool is_number =
      !name.empty() && name.find_first_not_of("0123456789") == std::string_view::npos;
  if (link.empty() ? name != "cwd" && name != "root" : !is_number) return std::nullopt;
  return std::pair(link + std::string(name), "." + std::string(path.substr(size)));
}

Result<UniqueFd> OpenNow(pid_t thread, const std::string& path) {
  const bool is_absolute = path.starts_with('/');
  Result<UniqueFd> opened = is_absolute ? OpenFrom(thread, "root", path, RESOLVE_IN_ROOT)
                                        : OpenFrom(thread, "cwd", path, 0);
  // A link of /proc is refused below another root.  Ours would lead to our own directories.
  if (is_absolute && !opened.ok() && opened.status().error() == EXDEV) {
    if (const auto parts = SplitLink(path)) {
      opened = OpenFrom(thread, parts->first, parts->second, 0);
    }
  }
  struct statvfs info;
  if (opened.ok() && fstatvfs(opened->get(), &info) != 0) return LastError(path);
  return opened;
}

}  // namespace

Result<UniqueFd> OpenDirectoryOf(pid_t thread, const std::string& path,
                                 std::chrono::milliseconds patience) {
  const Status none(ETIMEDOUT, "the file system of " + path + " does not answer");
  if (unanswered > 0) return none;
  const auto answer = std::make_shared<std::promise<Result<UniqueFd>>>();
  std::future<Result<UniqueFd>> opened = answer->get_future();
  ++unanswered;
  Result<std::thread> opener = cachecore::StartThread("opening " + path, [answer, thread, path] {
    Result<UniqueFd> result = OpenNow(thread, path);
    --unanswered;  // First: what gets the answer may ask again at once.
    answer->set_value(std::move(result));
  });
  if (!opener.ok()) {
    --unanswered;
    return opener.status();
  }
  opener->detach();
  if (opened.wait_for(patience) != std::future_status::ready) return none;
  return opened.get();
}

}  // namespace fusefs
