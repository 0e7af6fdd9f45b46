#include "cachecore/system/pid_stamp.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>

namespace cachecore {
namespace {

constexpr int kFieldsBefore = 19;  // proc(5): starttime is the 22nd, and two end with the name.
constexpr size_t kStatBytes = 1024;

// 0: the process is gone.  Async-signal-safe, without allocations.
uint64_t StartOf(pid_t pid) {
  char path[32] = "/proc/";
  char* end = std::to_chars(path + 6, path + sizeof path - 6, pid).ptr;
  std::string_view("/stat").copy(end, 5);
  end[5] = '\0';
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char buffer[kStatBytes];
  const ssize_t size = read(fd, buffer, sizeof buffer);
  close(fd);
  std::string_view stat(buffer, size > 0 ? static_cast<size_t>(size) : 0);
  // The second field is the program's name, in parentheses; it may have any character.
  const size_t name_end = stat.rfind(") ");
  if (name_end == std::string_view::npos) return 0;
  stat.remove_prefix(name_end + 2);
  for (int i = 0; i < kFieldsBefore; ++i) {
    const size_t space = stat.find(' ');
    if (space == std::string_view::npos) return 0;
    stat.remove_prefix(space + 1);
  }
  uint64_t ticks = 0;
  std::from_chars(stat.data(), stat.data() + stat.size(), ticks);
  return ticks;
}

}  // namespace

std::optional<uint64_t> ProcessStart(pid_t pid) {
  const uint64_t start = pid > 0 ? StartOf(pid) : 0;
  if (start == 0) return std::nullopt;
  return start;
}

size_t PutPidStamp(pid_t pid, char separator, char* out) {
  char* const limit = out + kPidStampBytesMax;
  char* end = std::to_chars(out, limit, pid).ptr;
  *end++ = separator;
  end = std::to_chars(end, limit, StartOf(pid)).ptr;
  return static_cast<size_t>(end - out);
}

std::string OwnPidStamp(char separator) {
  char text[kPidStampBytesMax];
  return std::string(text, PutPidStamp(getpid(), separator, text));
}

PidStamp ParsePidStamp(std::string_view text) {
  PidStamp stamp;
  const char* const end = text.data() + text.size();
  const auto number = std::from_chars(text.data(), end, stamp.pid);
  if (number.ec != std::errc() || stamp.pid <= 0) return {};
  if (number.ptr != end) std::from_chars(number.ptr + 1, end, stamp.started);
  return stamp;
}

bool IsThere(const PidStamp& stamp) {
  const std::optional<uint64_t> start = ProcessStart(stamp.pid);
  return start && (stamp.started == 0 || stamp.started == *start);
}

}  // namespace cachecore
