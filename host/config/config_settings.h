// ConfigSettings: what configuration files mean for an instance.
//
// Model    flags of a command line outweigh the files.  Whether a daemon takes a flag with its
//          value is asked of its program (--check-flags), so that there is one authority.
// Errors   EINVAL with the first fault, by file, line and key, and how many more there are.
// Threads  as RunProgram.
// See      holdfast.conf(5); docs/semantics.md "Configuration files"

#ifndef HOST_CONFIG_CONFIG_SETTINGS_H_
#define HOST_CONFIG_CONFIG_SETTINGS_H_

#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/config/config_file.h"
#include "host/instance/instance.h"
#include "host/instance/settings.h"

namespace host {

// The files of the instance, with the faults that its programs find in them.
cachecore::Result<Config> CheckConfig(const Instance& instance,
                                      const cachecore::Deadline& deadline);
// In one line: the first, and how the others are shown.  REQUIRES: there is one.
std::string FaultsText(const Instance& instance, const std::vector<ConfigFault>& faults);

// What an instance is started with: `given`, and the files' for what it leaves open.
cachecore::Result<Settings> WithConfig(const Instance& instance, const Settings& given,
                                       const cachecore::Deadline& deadline);
// Where its cache is to be; whatever is wrong with the files.
std::string ConfiguredCacheDir(const Instance& instance, const Settings& given);

// Writes each daemon's flags into the run directory, for units: PROGRAM.flags, as gflags'
// --flagfile takes it.  Where the files have faults, and flags are there from before, those stay:
// the faults are returned in `*faults`, and the result is OK.
cachecore::Status WriteFlagFiles(const Instance& instance, const cachecore::Deadline& deadline,
                                 std::vector<ConfigFault>* faults);

}  // namespace host

#endif  // HOST_CONFIG_CONFIG_SETTINGS_H_
