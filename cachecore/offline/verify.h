// VerifyCache: an offline look at a cache directory for everything that must hold in it.
//
// Model    records are read from one read-only snapshot of the database, then each object's data
//          file is looked at.  A *fault* is a state that no crash and no power cut may leave, or
//          that the daemon would have to repair; a *note* is one that they may leave.
// Errors   EINVAL: the request makes no sense; else what keeps the cache from being read at all.
//          Whatever is wrong inside it is a finding, never an error.
// Threads  thread-compatible; blocks on disk.
// Cost     one pass over all records, in memory two strings an object; one lstat an object, and one
//          read of what is present of those whose content is compared.
// Crash    nothing is written and no lock is taken.  Beside a running daemon the records are of one
//          moment and the files are newer: what is being made or removed meanwhile may be reported.
// See      holdfast(1) "holdfast verify".

#ifndef CACHECORE_OFFLINE_VERIFY_H_
#define CACHECORE_OFFLINE_VERIFY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cachecore/base/status.h"

namespace cachecore {

struct VerifyOptions {
  // `file` holds the right bytes of the object.
  struct Content {
    std::string volume;
    std::string cookie;
    std::string file;
  };
  std::string cache_dir;
  std::string boot_id;       // Whose presence is trusted beside what is durable.
  bool as_new_boot = false;  // Only what is durable is trusted, as after a power cut.
  std::vector<Content> contents;
};

struct Finding {
  std::string subject;
  std::string what;
  friend auto operator<=>(const Finding&, const Finding&) = default;
};

struct VerifyReport {
  std::vector<Finding> faults;  // Sorted, as the notes are.
  std::vector<Finding> notes;
  uint64_t objects = 0;
  uint64_t present_bytes = 0;   // Trusted, over all objects.
  uint64_t durable_bytes = 0;   // Of those, durable.
  uint64_t compared_bytes = 0;  // With the files of `contents`.
};

Result<VerifyReport> VerifyCache(const VerifyOptions& options);

}  // namespace cachecore

#endif  // CACHECORE_OFFLINE_VERIFY_H_
