#include "host/supervisor/supervise_status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "host/supervisor/supervise_fields.h"

namespace host {
namespace {

namespace field = supervise_field;

// A quoted byte takes at most two: names and texts hold no control characters once quoted.
constexpr size_t kHeadBytes = 640 + 2 * kStatusTextBytesMax;
constexpr size_t kTotalsBytes = 1024;
constexpr size_t kServiceBytes = 512 + kTotalsBytes + 2 * (kLastExitBytesMax + kStatusTextBytesMax);
constexpr size_t kStoredFdBytes = 2 * kFdNameBytesMax + 4;
constexpr size_t kFileBytes = 4096;  // A file's size is a multiple of it.

}  // namespace

SuperviseStatus::SuperviseStatus(std::string path, size_t services, size_t stored_fds)
    : path_(std::move(path)),
      path_tmp_(path_ + ".tmp"),
      buffer_(kHeadBytes + services * kServiceBytes + stored_fds * kStoredFdBytes + kFileBytes) {}

void SuperviseStatus::Begin(const SupervisorStatus& supervisor) {
  size_ = 0;
  overflow_ = false;
  first_service_ = true;
  PutField("{", field::kPid);
  PutNumber(supervisor.pid);
  PutField(",", field::kStandby);
  PutNumber(supervisor.standby);
  PutField(",", field::kWhyNoStandby);
  PutQuoted(supervisor.why_no_standby);
  PutField(",", field::kTakeovers);
  PutNumber(static_cast<int64_t>(supervisor.takeovers));
  PutField(",", field::kVersion);
  PutQuoted(HOLDFAST_VERSION);
  PutField(",", field::kTakeoversBefore);
  PutNumber(static_cast<int64_t>(supervisor.takeovers_before));
  PutField(",", field::kExchangesRefused);
  PutNumber(static_cast<int64_t>(supervisor.exchanges_refused));
  PutField(",", field::kWhyNotExchanged);
  PutQuoted(supervisor.why_not_exchanged);
  PutField(",", field::kState);
  PutQuoted(supervisor.state);
  PutField(",", field::kSinceMs);
  PutNumber(supervisor.since_ms);
  PutField(",", field::kServices);
  Put("[");
}

void SuperviseStatus::Service(const ServiceStatus& service) {
  PutField(std::exchange(first_service_, false) ? "\n{" : ",\n{", field::kName);
  PutQuoted(service.name);
  PutField(",", field::kPid);
  PutNumber(service.pid);
  PutField(",", field::kSpare);
  PutNumber(service.spare);
  PutField(",", field::kState);
  PutQuoted(service.state);
  PutField(",", field::kSinceMs);
  PutNumber(service.since_ms);
  PutField(",", field::kRestarts);
  PutNumber(static_cast<int64_t>(service.restarts));
  PutField(",", field::kRetryAtMs);
  PutNumber(service.retry_at_ms);
  PutTotals(service.totals);
  PutField(",", field::kLastExit);
  PutQuoted(service.last_exit);
  PutField(",", field::kStatus);
  PutQuoted(service.status);
  PutField(",", field::kFdStore);
  Put("[");
  for (size_t i = 0; i < service.fd_store->size(); ++i) {
    if (i > 0) Put(",");
    PutQuoted(service.fd_store->name(i));
  }
  Put("]}");
}

void SuperviseStatus::PutTotals(const ServiceTotals& totals) {
  PutField(",", field::kEnds);
  for (size_t i = 0; i < totals.ends.size(); ++i) {
    PutField(i == 0 ? "{" : ",", kEndReasonNames[i]);
    PutNumber(static_cast<int64_t>(totals.ends[i]));
  }
  PutField("},", field::kPauses);
  for (size_t i = 0; i < totals.pauses.size(); ++i) {
    Put(i == 0 ? "[" : ",");
    PutNumber(static_cast<int64_t>(totals.pauses[i]));
  }
  PutField("],", field::kPausesUs);
  PutNumber(static_cast<int64_t>(totals.pauses_us));
}

bool SuperviseStatus::Write() {
  Put("\n]}\n");
  if (overflow_) {
    errno = EOVERFLOW;
    return false;
  }
  // Of a constant size, and in one of two files that are written in turn: on a full disk there is
  // room for what has been written before.
  file_bytes_ = std::max(file_bytes_, (size_ + kFileBytes - 1) / kFileBytes * kFileBytes);
  std::fill(buffer_.begin() + static_cast<ptrdiff_t>(size_),
            buffer_.begin() + static_cast<ptrdiff_t>(file_bytes_), '\n');
  if (!WriteBeside()) return false;
  const char* from = path_tmp_.c_str();
  if (renameat2(AT_FDCWD, from, AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (rename(from, path_.c_str()) != 0) return false;  // The first, or it cannot exchange files.
  WriteBeside();
  return true;
}

// A reader must never see half a text, so a short write (a full disk) isn't renamed into place.
bool SuperviseStatus::WriteBeside() const {
  cachecore::UniqueFd file(open(path_tmp_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!file.valid()) return false;
  const ssize_t written = write(file.get(), buffer_.data(), file_bytes_);
  if (written >= 0) errno = ENOSPC;
  return written == static_cast<ssize_t>(file_bytes_) &&
         ftruncate(file.get(), static_cast<off_t>(file_bytes_)) == 0;
}

void SuperviseStatus::RemoveTemporary() { unlink(path_tmp_.c_str()); }

void SuperviseStatus::Put(std::string_view text) {
  if (text.size() > buffer_.size() - kFileBytes - size_) {
    overflow_ = true;
    return;
  }
  std::copy(text.begin(), text.end(), buffer_.begin() + static_cast<ptrdiff_t>(size_));
  size_ += text.size();
}

void SuperviseStatus::PutField(std::string_view before, std::string_view name) {
  Put(before);
  Put("\"");
  Put(name);
  Put("\":");
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

}  // namespace host
