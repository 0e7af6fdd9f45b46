// Figures: the numbers of a report, from what was gathered.
//
// Model    each byte of the image is one of four: read, ahead (present, not read), culled, absent.
// Threads  pure functions.
// Cost     O(cells log ranges + files log ranges).

#ifndef HOST_REPORT_REPORT_FIGURES_H_
#define HOST_REPORT_REPORT_FIGURES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "host/report/report_data.h"

namespace host {

// Bytes of a part of the image, by what has become of them.
struct Shares {
  uint64_t read = 0;
  uint64_t ahead = 0;
  uint64_t culled = 0;
  uint64_t absent = 0;

  uint64_t present() const { return read + ahead; }
};

struct FileFigures {
  const ErofsFile* file = nullptr;
  uint64_t stored_bytes = 0;  // In the image: less than its size when compressed.
  Shares shares;
};

// One column of the timeline.
struct TimeBucket {
  uint64_t demanded_bytes = 0;
  uint64_t ahead_bytes = 0;
  int64_t longest_wait_us = 0;  // Of the reads that waited in it.
  size_t waits = 0;             // Reads that began to wait in it.
  size_t failures = 0;
};

struct Figures {
  Shares shares;
  uint64_t outside_files = 0;  // Read bytes of no file: directories, inodes, what has no name here.
  uint64_t fetched_bytes = 0;  // In the history.
  uint64_t fetched_ahead = 0;
  size_t failures = 0;
  int64_t median_wait_us = 0;
  int64_t longest_wait_us = 0;
  uint64_t cell_bytes = 0;
  std::vector<Shares> cells;
  std::vector<FileFigures> files;  // Those with present, read or culled bytes; most read first.
  int64_t begin_us = 0;            // Of the timeline.
  int64_t end_us = 0;
  std::vector<TimeBucket> timeline;
  std::vector<const ReportedRead*> slowest;  // Slowest first.
};

inline constexpr size_t kMapColumns = 128;
inline constexpr size_t kMapRows = 32;
inline constexpr size_t kTimeColumns = 120;
inline constexpr size_t kSlowestMax = 40;

// `data` outlives what is returned.
Figures Calculate(const ReportData& data);

// Which files a range belongs to, some of them.
class FileIndex {
 public:
  explicit FileIndex(const ErofsListing& listing);
  // At most `max`, in the order of their blocks.
  std::vector<const ErofsFile*> At(cachecore::ByteRange range, size_t max) const;

 private:
  // By the end of an extent, as far as extents do not overlap.
  std::multimap<uint64_t, std::pair<uint64_t, const ErofsFile*>> by_end_;
};

}  // namespace host

#endif  // HOST_REPORT_REPORT_FIGURES_H_
