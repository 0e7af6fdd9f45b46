// ReadAhead: notices sequential readers of one object and says how far ahead to fetch.
//
// Model    a few streams, each a place where a reader is expected next and a window that doubles
//          with each step from `min_bytes` to `max_bytes`.  Reads that arrive slightly out of order
//          (the kernel sends several at once) still belong to their stream.  A jump starts a new
//          stream with no window, so random reads fetch nothing ahead.
// Threads  thread-compatible; guarded by GuardedEngine::mu.
// Crash    memory only: a restarted daemon learns its readers again.

#ifndef CACHECORE_ENGINE_READ_AHEAD_H_
#define CACHECORE_ENGINE_READ_AHEAD_H_

#include <array>
#include <cstdint>

#include "cachecore/base/byte_range.h"

namespace cachecore {

class ReadAhead {
 public:
  // The range to request beyond `read`, which may be empty.  `max_bytes` 0 switches read-ahead off.
  ByteRange Advance(ByteRange read, uint64_t min_bytes, uint64_t max_bytes);

 private:
  struct Stream {
    uint64_t next = 0;       // Where the reader is expected.
    uint64_t window = 0;     // How much to keep requested beyond `next`.
    uint64_t asked_end = 0;  // The end of what was requested so far.
    uint64_t used = 0;       // Last use, for replacement; 0 is a free slot.
  };
  std::array<Stream, 8> streams_;
  uint64_t uses_ = 0;
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_READ_AHEAD_H_
