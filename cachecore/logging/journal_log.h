// JournalLog: sends what is logged to systemd's journal with fields, where stderr is the journal.
//
// Model    a sink of glog in the place of stderr.  Each line goes to the journal's socket:
//          MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, CODE_FILE, CODE_LINE, and what the line is about
//          (LogAbout): MESSAGE_ID, HOLDFAST_OBJECT, HOLDFAST_RANGE, HOLDFAST_ORIGIN.
// Errors   none: what the journal does not take at once is lost.  A journal that hangs holds nobody
//          up, which libsystemd's own calls would.
// Threads  as glog's sinks: one line at a time.
// See      systemd, "Native Journal Protocol"; systemd.exec(5), JOURNAL_STREAM.

#ifndef CACHECORE_LOGGING_JOURNAL_LOG_H_
#define CACHECORE_LOGGING_JOURNAL_LOG_H_

#include <glog/logging.h>
#include <sys/un.h>

#include <ctime>
#include <string>

#include "cachecore/base/unique_fd.h"

namespace cachecore {

class JournalLog : public google::LogSink {
 public:
  static constexpr char kSocket[] = "/run/systemd/journal/socket";

  // `program`: as which the journal shows the lines.  Changes nothing unless systemd has said
  // (JOURNAL_STREAM) that stderr is its journal.
  explicit JournalLog(std::string program, const std::string& path = kSocket);
  ~JournalLog() override;

  void send(google::LogSeverity severity, const char* full_filename, const char* base_filename,
            int line, const tm* time, const char* message, size_t message_len) override;

 private:
  const std::string program_;
  sockaddr_un journal_ = {};
  UniqueFd socket_;
};

}  // namespace cachecore

#endif  // CACHECORE_LOGGING_JOURNAL_LOG_H_
