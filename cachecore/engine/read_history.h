// ReadHistory: the last reads that had to wait, and why they did; the last fetches.
//
// Model    reads by serial, from 1 and without gaps, in the order in which they ended.  The oldest
//          go when there are more than kMaxReads: a follower that is too slow can count what it has
//          lost by their serials.  Reads of present bytes are not in it.
// Threads  thread-compatible; guarded by GuardedEngine::mu.
// Cost     a read that had to wait, a fetch: O(1).  Memory: kMaxReads entries, of the names of an
//          object and kMaxWhy bytes of text at most, and kMaxFetches small ones.
// Crash    memory only: the next daemon begins an empty one.

#ifndef CACHECORE_ENGINE_READ_HISTORY_H_
#define CACHECORE_ENGINE_READ_HISTORY_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/values/ids.h"

namespace cachecore {

// Whose read it is, for people.
struct Reader {
  pid_t thread = 0;   // 0: not known.
  pid_t process = 0;  // 0: it was gone already.
  std::string command = "";
  std::string again = "";  // Why it reads a second time.
};

// A read that waits, or has waited.
struct WaitedRead {
  uint64_t serial = 0;  // Of one that has ended.
  ObjectNumber object;
  std::string volume_key;
  std::string cookie_key;
  ByteRange range;
  Duration started{0};
  Duration waited{0};
  Reader reader;
  int error = 0;    // With which it has ended.
  std::string why;  // It waits, or had to.
};

// Bytes that a fetcher has brought.
struct EndedFetch {
  ObjectNumber object;
  ByteRange range;  // Of the request.
  uint64_t filled_bytes = 0;
  Duration started{0};
  Duration took{0};
  bool demanded = false;  // A read waited for it; else it was fetched ahead.
};

class ReadHistory {
 public:
  static constexpr size_t kMaxReads = 4096;
  static constexpr size_t kMaxWhy = 400;
  static constexpr size_t kMaxFetches = 8192;

  void Add(WaitedRead read) {
    read.serial = ++last_;
    if (read.why.size() > kMaxWhy) read.why.resize(kMaxWhy);
    if (reads_.size() == kMaxReads) reads_.pop_front();
    reads_.push_back(std::move(read));
  }
  // Of the last read that has ended; 0 is none.
  uint64_t last() const { return last_; }
  const std::deque<WaitedRead>& reads() const { return reads_; }
  void AddFetch(const EndedFetch& fetch) {
    if (fetches_.size() == kMaxFetches) fetches_.pop_front();
    fetches_.push_back(fetch);
  }
  const std::deque<EndedFetch>& fetches() const { return fetches_; }

 private:
  std::deque<WaitedRead> reads_;
  std::deque<EndedFetch> fetches_;
  uint64_t last_ = 0;
};

// What a follower asks for.
struct TraceQuestion {
  uint64_t after = 0;  // The last serial that it has seen.
  Duration over{0};    // Reads that have waited for less are passed over.
  Duration since{0};   // Of the reads that wait: those that have reached `over` after this.
  size_t max = 1000;   // Of each list.
};

struct TraceAnswer {
  Duration now{0};
  uint64_t last = 0;   // What the next question's `after` is.
  bool is_all = true;  // False: more has ended than fits.
  uint64_t lost = 0;   // Reads that ended after `after` and are forgotten, of whatever length.
  std::vector<WaitedRead> ended;
  std::vector<WaitedRead> waiting;
  size_t waiting_left_out = 0;
};

// What is known of one object's past.
struct ObjectHistory {
  static constexpr size_t kMaxRanges = 200'000;  // Of each list; the bytes behind are left out.

  Duration now{0};
  uint64_t size_bytes = 0;
  std::vector<ByteRange> present;
  std::vector<ByteRange> read;    // Blocks that readers asked for in this life of the daemon.
  std::vector<ByteRange> culled;  // Blocks that were taken out in it, and are absent.
  std::vector<WaitedRead> ended;
  std::vector<WaitedRead> waiting;
  std::vector<EndedFetch> fetches;
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_READ_HISTORY_H_
