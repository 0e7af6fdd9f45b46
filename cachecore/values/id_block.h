// IdBlock: hands out numbers from ranges that were reserved on disk first, so that none ever
// recurs.
//
// Model    a current range and a next one.  The owner refills (disk) while there are plenty left
//          and takes (no I/O) at any time.
// Threads  thread-compatible; guarded by IdReserve::mu_.
// Crash    what is reserved and not taken is lost; what is taken never comes again.

#ifndef CACHECORE_VALUES_ID_BLOCK_H_
#define CACHECORE_VALUES_ID_BLOCK_H_

#include <glog/logging.h>

#include <cstdint>

namespace cachecore {

class IdBlock {
 public:
  explicit IdBlock(uint64_t low_water) : low_water_(low_water) {}

  uint64_t left() const { return (end_ - next_) + (spare_end_ - spare_next_); }
  bool NeedsMore() const { return left() < low_water_; }
  // A refill has failed: what is left is enough for a while (a disk may be full for long).
  bool CanWait() const { return left() >= low_water_ / 4; }
  void Add(uint64_t first, uint64_t count) {
    if (next_ == end_) {
      next_ = first;
      end_ = first + count;
    } else {
      CHECK_EQ(spare_next_, spare_end_);
      spare_next_ = first;
      spare_end_ = first + count;
    }
  }
  uint64_t Take() {
    if (next_ == end_) {
      next_ = spare_next_;
      end_ = spare_end_;
      spare_next_ = spare_end_;
    }
    CHECK_LT(next_, end_) << "ids ran out between refills";
    return next_++;
  }

 private:
  const uint64_t low_water_;
  uint64_t next_ = 0, end_ = 0;
  uint64_t spare_next_ = 0, spare_end_ = 0;
};

}  // namespace cachecore

#endif  // CACHECORE_VALUES_ID_BLOCK_H_
