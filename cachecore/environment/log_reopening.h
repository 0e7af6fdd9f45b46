// LogReopening: what a daemon writes goes to a new log file after SIGHUP, as log rotation wants it.
//
// Model    a service writes to its standard error, which its supervisor has opened.  The file's
//          path is asked of the kernel at the start, before anybody has renamed it.  On SIGHUP the
//          path is opened again and takes the place of the descriptors.  Output that is no file
//          that is appended to, such as a terminal or the journal, stays, and SIGHUP does what it
//          did.
// Errors   a file that cannot be opened is said in the old one, which stays in use.
// Threads  ReopenLogOnHangup: before the process has other threads; it makes one.
// See      holdfast(1) "FILES"

#ifndef CACHECORE_ENVIRONMENT_LOG_REOPENING_H_
#define CACHECORE_ENVIRONMENT_LOG_REOPENING_H_

#include <functional>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace cachecore {

// Of what is standard error now; "": it is no log file.
std::string LogFilePath();
Result<UniqueFd> OpenLogFile(const std::string& path);
// From now on, unless `path` is "".
void ReopenLogOnHangup(const std::string& path,
                       std::function<Result<UniqueFd>(const std::string& path)> open = OpenLogFile);

}  // namespace cachecore

#endif  // CACHECORE_ENVIRONMENT_LOG_REOPENING_H_
