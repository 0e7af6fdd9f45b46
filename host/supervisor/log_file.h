// LogFile: keeps a log that others append to from growing for ever.
//
// Model    once the file is larger than its limit, it is copied to PATH.1, whose earlier contents
//          go, and emptied.  Its writers keep their descriptors, which append (O_APPEND).
// Errors   not reported.  What cannot be copied, as on a full disk, is emptied all the same.
// Threads  one thread only.
// Cost     Limit: one stat(2); takes no memory.  Copying takes milliseconds.
// Crash    killed between the copy and the emptying, the copy is made again.  What is appended
//          between the two is lost: a few lines at most.

#ifndef HOST_SUPERVISOR_LOG_FILE_H_
#define HOST_SUPERVISOR_LOG_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cachecore/base/clock.h"

namespace host {

class LogFile {
 public:
  LogFile() = default;
  // "": no file.
  LogFile(std::string path, uint64_t bytes_max);
  void Limit() const;

 private:
  std::string path_;
  std::string old_path_;
  uint64_t bytes_max_ = 0;
};

// Several of them, looked at every few seconds: by a supervisor that starts of services and their
// watchdogs' pings wake.
class LogFiles {
 public:
  void Add(const std::string& path, uint64_t bytes_max) { logs_.emplace_back(path, bytes_max); }
  void Limit(cachecore::Duration now);

 private:
  std::vector<LogFile> logs_;
  cachecore::Duration next_{0};
};

}  // namespace host

#endif  // HOST_SUPERVISOR_LOG_FILE_H_
