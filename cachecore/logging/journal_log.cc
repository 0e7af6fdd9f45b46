#include "cachecore/logging/journal_log.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cachecore/logging/log_fields.h"

namespace cachecore {
namespace {

constexpr size_t kValueMax = 16 << 10;  // The journal takes more, a socket's buffer not always.

// The protocol's form without a length: a value has no line break.
void Add(const char* field, std::string value, std::string* datagram) {
  if (value.empty()) return;
  value.resize(std::min(value.size(), kValueMax));
  std::replace(value.begin(), value.end(), '\n', ' ');
  *datagram += std::string(field) + "=" + value + "\n";
}

const char* PriorityOf(google::LogSeverity severity) {
  switch (severity) {
    case google::GLOG_INFO:
      return "6";
    case google::GLOG_WARNING:
      return "4";
    case google::GLOG_ERROR:
      return "3";
    default:
      return "2";
  }
}

bool IsJournal(int fd) {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat info;
  return stream != nullptr && fstat(fd, &info) == 0 &&
         stream == std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino);
}

}  // namespace

JournalLog::JournalLog(std::string program, const std::string& path)
    : program_(std::move(program)) {
  if (!IsJournal(STDERR_FILENO) || path.size() >= sizeof journal_.sun_path) return;
  journal_.sun_family = AF_UNIX;
  path.copy(journal_.sun_path, path.size());
  socket_.Reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_.valid()) return;
  google::AddLogSink(this);
  FLAGS_logtostderr = false;
  FLAGS_stderrthreshold = google::GLOG_FATAL;
  for (int severity = 0; severity < google::NUM_SEVERITIES; ++severity) {
    google::SetLogDestination(severity, "");  // No files either.
  }
}

JournalLog::~JournalLog() {
  if (!socket_.valid()) return;
  google::RemoveLogSink(this);
  FLAGS_logtostderr = true;
}

void JournalLog::send(google::LogSeverity severity, const char* full_filename,
                      const char* /*base_filename*/, int line, const tm* /*time*/,
                      const char* message, size_t message_len) {
  const LogAbout about = TakeLogFields();
  std::string datagram;
  Add("MESSAGE", std::string(message, message_len), &datagram);
  Add("PRIORITY", PriorityOf(severity), &datagram);
  Add("SYSLOG_IDENTIFIER", program_, &datagram);
  Add("CODE_FILE", full_filename, &datagram);
  Add("CODE_LINE", std::to_string(line), &datagram);
  Add("MESSAGE_ID", MessageId(about.kind), &datagram);
  Add("HOLDFAST_OBJECT", about.object, &datagram);
  if (about.range) Add("HOLDFAST_RANGE", about.range->ToString(), &datagram);
  Add("HOLDFAST_ORIGIN", about.origin, &datagram);
  // By its path each time: a journal that has started again has another socket.
  (void)sendto(socket_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&journal_), sizeof journal_);
}

}  // namespace cachecore
