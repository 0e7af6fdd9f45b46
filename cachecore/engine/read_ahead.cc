#include "cachecore/engine/read_ahead.h"

#include <algorithm>

namespace cachecore {
namespace {

// How far from the expected place a read still counts as the stream's next.  The kernel has several
// requests of 128 KiB and more in flight for one reader, and the FUSE threads see them in any
// order.
constexpr uint64_t kSlack = 2u << 20;

// What a reader has consumed of a window before more is requested, if half of the
// window is more.  As large as a READ may be.  A larger step leaves connections without work.
constexpr uint64_t kLargestStep = 4u << 20;

}  // namespace

ByteRange ReadAhead::Advance(ByteRange read, uint64_t min_bytes, uint64_t max_bytes) {
  if (max_bytes == 0) return {};
  Stream* stream = nullptr;
  for (Stream& candidate : streams_) {
    if (candidate.used != 0 && read.begin <= candidate.next + kSlack &&
        read.end + kSlack >= candidate.next) {
      stream = &candidate;
      break;
    }
  }
  if (stream == nullptr) {
    stream = std::min_element(streams_.begin(), streams_.end(),
                              [](const Stream& a, const Stream& b) { return a.used < b.used; });
    *stream = {.next = read.end, .window = 0, .asked_end = read.end, .used = ++uses_};
    // A reader that begins at the start of the object most often wants all of it.
    if (read.begin != 0) return {};
  }
  stream->used = ++uses_;
  if (read.end <= stream->next && stream->window != 0) return {};  // Within what was seen.
  stream->next = std::max(stream->next, read.end);
  stream->window = std::clamp(stream->window * 2, min_bytes, max_bytes);
  // Request halves of a small window: requests are large, and some are under way at any time.
  const uint64_t step = std::min(stream->window / 2, kLargestStep);
  if (stream->asked_end + step > stream->next + stream->window) return {};
  const ByteRange ahead{std::max(stream->asked_end, stream->next), stream->next + stream->window};
  stream->asked_end = ahead.end;
  return ahead;
}

}  // namespace cachecore
