#include "cli/supervise_status.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "cachecore/unique_fd.h"

namespace cli {
namespace {

// A quoted byte takes at most two: names and texts hold no control characters once quoted.
constexpr size_t kHeadBytes = 256;
constexpr size_t kServiceBytes = 512 + 2 * (kLastExitBytesMax + kStatusTextBytesMax);
constexpr size_t kStoredFdBytes = 2 * kFdNameBytesMax + 4;

}  // namespace

SuperviseStatus::SuperviseStatus(std::string path, size_t services, size_t stored_fds)
    : path_(std::move(path)),
      path_tmp_(path_ + ".tmp"),
      buffer_(kHeadBytes + services * kServiceBytes + stored_fds * kStoredFdBytes) {}

void SuperviseStatus::Begin(pid_t pid, const char* state, int64_t since_ms) {
  size_ = 0;
  overflow_ = false;
  first_service_ = true;
  Put("{\"pid\":");
  PutNumber(pid);
  Put(",\"state\":");
  PutQuoted(state);
  Put(",\"since_ms\":");
  PutNumber(since_ms);
  Put(",\"services\":[");
}

void SuperviseStatus::Service(const ServiceStatus& service) {
  Put(std::exchange(first_service_, false) ? "\n{\"name\":" : ",\n{\"name\":");
  PutQuoted(service.name);
  Put(",\"pid\":");
  PutNumber(service.pid);
  Put(",\"spare\":");
  PutNumber(service.spare);
  Put(",\"state\":");
  PutQuoted(service.state);
  Put(",\"since_ms\":");
  PutNumber(service.since_ms);
  Put(",\"restarts\":");
  PutNumber(static_cast<int64_t>(service.restarts));
  Put(",\"retry_at_ms\":");
  PutNumber(service.retry_at_ms);
  Put(",\"last_exit\":");
  PutQuoted(service.last_exit);
  Put(",\"status\":");
  PutQuoted(service.status);
  Put(",\"fd_store\":[");
  for (size_t i = 0; i < service.fd_store->size(); ++i) {
    if (i > 0) Put(",");
    PutQuoted(service.fd_store->name(i));
  }
  Put("]}");
}

bool SuperviseStatus::Write() {
  Put("\n]}\n");
  if (overflow_) return false;
  cachecore::UniqueFd file(open(path_tmp_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return false;
  // A reader must never see half a text, so a short write (a full disk) isn't renamed into place.
  if (write(file.get(), buffer_.data(), size_) != static_cast<ssize_t>(size_)) return false;
  return rename(path_tmp_.c_str(), path_.c_str()) == 0;
}

void SuperviseStatus::Put(std::string_view text) {
  if (text.size() > buffer_.size() - size_) {
    overflow_ = true;
    return;
  }
  std::copy(text.begin(), text.end(), buffer_.begin() + static_cast<ptrdiff_t>(size_));
  size_ += text.size();
}

void SuperviseStatus::PutQuoted(std::string_view text) {
  Put("\"");
  for (char c : text) {
    if (c == '"' || c == '\\') Put("\\");
    bool printable = c >= ' ' && c < 0x7f;
    char safe = printable ? c : '?';
    Put({&safe, 1});
  }
  Put("\"");
}

void SuperviseStatus::PutNumber(int64_t number) {
  char digits[24];
  auto result = std::to_chars(digits, digits + sizeof(digits), number);
  Put({digits, static_cast<size_t>(result.ptr - digits)});
}

}  // namespace cli
