// ThroughRead: the READ of one object that is fetched into memory while its data file has no room.
//
// Model    one READ at a time, from Begin to its end: by Seal, with all its bytes, or by Reset,
//          without them.  Its bytes are in a memfd at their place in the object.  Objects of one
//          connection share the count of such READs, so that their memory is bounded.  After a
//          failure of this machine or of the daemon none begins for kPause.  Time is passed in.
// Errors   Begin and Seal say false or nullopt, with the failure in errno.
// Threads  the event loop's.
// Owns     the memfd; its place in the count.
// Crash    memory only: the daemon sends the READ again to the next fetcher.
// See      docs/protocol.md "full, through".

#ifndef FETCHER_ROOM_THROUGH_READ_H_
#define FETCHER_ROOM_THROUGH_READ_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/values/ids.h"

namespace fetcher {

class ThroughRead {
 public:
  static constexpr cachecore::Duration kPause = std::chrono::seconds(1);
  // How many READs may be in memory, of all objects: on their way from an origin or to the daemon.
  static constexpr size_t kMost = 8;

  // Bytes that are all here, in a file that nothing can change.
  struct Sealed {
    cachecore::MsgId id;
    cachecore::ByteRange range;
    cachecore::UniqueFd file;
  };

  // `count`: of READs that are being fetched so; outlives this.
  explicit ThroughRead(size_t* count) : count_(count) {}
  ~ThroughRead() { Reset(); }
  ThroughRead(const ThroughRead&) = delete;
  ThroughRead& operator=(const ThroughRead&) = delete;

  // Whether the READ may be continued, or one begin; `sent`: those on their way to the daemon.
  bool MayContinue(size_t sent, cachecore::Duration now) const;
  // Nothing is brought through before.
  cachecore::Duration paused_until() const { return paused_until_; }
  void Pause(cachecore::Duration now) { paused_until_ = now + kPause; }

  bool is_active() const { return read_.has_value(); }
  bool Is(cachecore::MsgId id) const { return read_ && read_->id == id; }
  // False if there is no memory for it.  REQUIRES: none is active.
  bool Begin(cachecore::MsgId id, cachecore::ByteRange range);
  // REQUIRES of these: one is active.
  cachecore::MsgId id() const { return read_->id; }
  // What is not here yet.
  cachecore::ByteRange rest() const { return {done_, read_->range.end}; }
  int file() const { return read_->file.get(); }
  // All of it up to `end` is here.
  void Arrived(uint64_t end) { done_ = end; }
  // Ends it; nullopt if the file cannot be sealed.
  std::optional<Sealed> Seal();
  // Ends it without its bytes, if one is active.
  void Reset();

 private:
  size_t* const count_;
  std::optional<Sealed> read_;  // Sealed by Seal alone.
  uint64_t done_ = 0;           // Where its bytes are here up to.
  cachecore::Duration paused_until_{0};
};

}  // namespace fetcher

#endif  // FETCHER_ROOM_THROUGH_READ_H_
