#include "cachecore/logging/log_fields.h"

#include <utility>

namespace cachecore {
namespace {

thread_local LogAbout of_this_line;

}  // namespace

const char* MessageId(LogKind kind) {
  switch (kind) {
    case LogKind::kOther:
      return "";
    case LogKind::kOriginFails:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a601";
    case LogKind::kOriginServes:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a602";
    case LogKind::kWrongBytes:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a603";
    case LogKind::kLostBytes:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a604";
    case LogKind::kDamagedRecord:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a605";
    case LogKind::kNoRoom:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a606";
    case LogKind::kAboveLimit:
      return "4f0d6f5b8f0e4c6e9b7a51c0f3d2a607";
  }
  return "";
}

std::ostream& operator<<(std::ostream& stream, const LogAbout& about) {
  of_this_line = about;
  return stream;
}

LogAbout TakeLogFields() { return std::exchange(of_this_line, LogAbout()); }

}  // namespace cachecore
