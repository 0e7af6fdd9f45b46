// RunForOutput: what a program prints, for those that bring credentials.
//
// Model    the program gets `input` on stdin, /dev/null as stderr (it may print secrets there), our
//          environment without the variables of service managers, and no descriptor of this
//          process.  It is killed when it takes too long or the call is cancelled.
// Errors   ENOENT and the like: it can't be run.  ETIMEDOUT, ECANCELED.  ECHILD: it ended with an
//          exit code other than 0.  E2BIG: it printed more than 64 KiB.  None quotes what it
//          printed.
// Threads  thread-safe; blocks.

#ifndef FETCHER_TRANSFER_CHILD_OUTPUT_H_
#define FETCHER_TRANSFER_CHILD_OUTPUT_H_

#include <string>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "fetcher/transfer/blocking_calls.h"

namespace fetcher {

// `argv`: its first is looked up in $PATH unless it has a '/'.
cachecore::Result<std::string> RunForOutput(const std::vector<std::string>& argv,
                                            const std::string& input, cachecore::Duration limit,
                                            const Cancel& cancel);

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_CHILD_OUTPUT_H_
