// --help and --version of the gflags programs: their own flags only, on standard output.

#ifndef CACHECORE_SYSTEM_PROGRAM_HELP_H_
#define CACHECORE_SYSTEM_PROGRAM_HELP_H_

#include <string>

namespace cachecore {

// True when --help or --version was given and has been answered.  `source_folder` ("fusefs/") tells
// the program's flags from the libraries'. REQUIRES: usage and version are set,
// gflags::ParseCommandLineNonHelpFlags has run.
bool PrintHelpIfAsked(const std::string& source_folder);

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_PROGRAM_HELP_H_
