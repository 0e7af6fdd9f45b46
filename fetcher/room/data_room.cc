#include "fetcher/room/data_room.h"

#include <fcntl.h>
#include <glog/logging.h>

#include <algorithm>
#include <cerrno>

#include "cachecore/logging/log_fields.h"
#include "fetcher/transfer/data_file.h"

namespace fetcher {

void DataRoom::Lacks(const Failure& failure, uint64_t begin, bool goes_through, Duration now) {
  if (!failure_ && (*without_room_)++ == 0) {
    LOG(WARNING) << cachecore::LogAbout{cachecore::LogKind::kNoRoom} << failure.cause
                 << "; what has to be fetched "
                 << (goes_through ? "is served without being kept" : "waits for room");
  }
  failure_ = failure;
  begin_ = begin;
  look_at_ = now + kInterval;
}

// Takes the room itself, so that no origin is asked for what could not be kept.
bool DataRoom::IsThere(int data_fd, uint64_t begin, uint64_t size_bytes) {
  const uint64_t size = std::min(kSought, size_bytes - std::min(begin, size_bytes));
  return size == 0 ||
         fallocate(data_fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                   static_cast<off_t>(size)) == 0 ||
         !TakesNoWrites(errno);
}

// Not before: where the file system has no fallocate, or takes these bytes but not the tree above
// them, each try would begin a spell with its log line.
void DataRoom::Found() {
  failure_.reset();
  if (--*without_room_ == 0) LOG(INFO) << "there is room again";
}

}  // namespace fetcher
