#include "host/supervisor/log_file.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "cachecore/base/unique_fd.h"

namespace host {

using cachecore::UniqueFd;

namespace {
constexpr std::chrono::seconds kEvery(5);
}  // namespace

LogFile::LogFile(std::string path, uint64_t bytes_max)
    : path_(std::move(path)), old_path_(path_ + ".1"), bytes_max_(bytes_max) {}

void LogFile::Limit() const {
  struct stat info;
  if (path_.empty() || stat(path_.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  if (static_cast<uint64_t>(info.st_size) <= bytes_max_) return;
  const UniqueFd log(open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!log.valid()) return;
  unlink(old_path_.c_str());  // Its room may be needed.
  const UniqueFd old(
      open(old_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, info.st_mode & 0777));
  off_t at = 0;
  // Only the end of one that has grown far beyond its limit.
  if (static_cast<uint64_t>(info.st_size) > 2 * bytes_max_) {
    at = info.st_size - static_cast<off_t>(bytes_max_);
  }
  while (old.valid() && at < info.st_size) {
    const ssize_t copied =
        sendfile(old.get(), log.get(), &at, static_cast<size_t>(info.st_size - at));
    if (copied <= 0) break;
  }
  [[maybe_unused]] const int emptied = ftruncate(log.get(), 0);
}

void LogFiles::Limit(cachecore::Duration now) {
  if (now < next_) return;
  next_ = now + kEvery;
  for (const LogFile& log : logs_) log.Limit();
}

}  // namespace host
