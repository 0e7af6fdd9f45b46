// GatherReport: what a running instance knows of one mounted image, for `holdfast report`.
//
// Model    asks the daemon for the image's history, and reads the names of its files from what of
//          its metadata is in the cache: nothing is fetched for a report.
// Units    bytes from the start of the image; microseconds, by the daemon's clock.
// Errors   ENOENT: no such mount, or the instance is not running; EACCES: needs root.
// Threads  one thread only.

#ifndef HOST_REPORT_REPORT_DATA_H_
#define HOST_REPORT_REPORT_DATA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"
#include "host/report/erofs_files.h"
#include "host/report/range_set.h"

namespace host {

struct ReportedRead {
  cachecore::ByteRange range;
  int64_t started_us = 0;
  int64_t waited_us = 0;
  int64_t pid = 0;
  std::string command;
  int error = 0;
  std::string why;
  bool waits = false;  // It has not ended.
};

struct ReportedFetch {
  cachecore::ByteRange range;
  uint64_t filled_bytes = 0;
  int64_t started_us = 0;
  int64_t took_us = 0;
  bool demanded = false;  // A read waited for it.
};

struct ReportData {
  std::string instance;
  std::string mount_point;
  std::string url;
  std::string volume;
  std::string object;
  uint64_t size_bytes = 0;
  int64_t daemon_started_unix_s = 0;
  int64_t now_us = 0;
  int64_t now_unix_us = 0;
  Ranges present;
  Ranges read;    // That programs have asked for since the daemon began.
  Ranges culled;  // That a cull has taken out since.
  std::vector<ReportedRead> reads;
  std::vector<ReportedFetch> fetches;
  ErofsListing listing;
  std::string why_no_files;  // "" where `listing` is of this image.
};

// `mount_point` "": the only one of the instance.
cachecore::Result<ReportData> GatherReport(const Instance& instance,
                                           const std::string& mount_point);

}  // namespace host

#endif  // HOST_REPORT_REPORT_DATA_H_
