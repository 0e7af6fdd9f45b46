// LogAbout: what a line of the log is about, for programs that read the log by fields.
//
// Model    LOG(ERROR) << LogAbout{...} << "text": writes nothing into the line.  A sink that is
//          told of the line takes the fields of it (TakeLogFields), in the same thread.
// Threads  each has its own.
// See      JournalLog, which sends the fields to systemd's journal; docs/operations.md "Watch".

#ifndef CACHECORE_LOGGING_LOG_FIELDS_H_
#define CACHECORE_LOGGING_LOG_FIELDS_H_

#include <optional>
#include <ostream>
#include <string>

#include "cachecore/base/byte_range.h"

namespace cachecore {

enum class LogKind {
  kOther,
  kOriginFails,
  kOriginServes,
  kWrongBytes,
  kLostBytes,
  kDamagedRecord,
  kNoRoom,
  kAboveLimit,
};
// As journald's MESSAGE_ID: 32 hexadecimal digits, or "" for kOther.
const char* MessageId(LogKind kind);

struct LogAbout {
  LogKind kind = LogKind::kOther;
  std::string object = "";  // VOLUME/COOKIE, or the number of one of which no more is known.
  std::optional<ByteRange> range = std::nullopt;
  std::string origin = "";
};
std::ostream& operator<<(std::ostream& stream, const LogAbout& about);
// Of the line that this thread writes; and forgets them.
LogAbout TakeLogFields();

}  // namespace cachecore

#endif  // CACHECORE_LOGGING_LOG_FIELDS_H_
