// ConfigFile: the settings of an instance that an administrator has written down.
//
// Model    ROOT/etc/holdfast/NAME.conf and then ROOT/etc/holdfast/NAME.conf.d/*.conf by name, in
//          TOML: a table for each program, keys are names of its flags.  Of a key in several files
//          the last one counts.
// Errors   faults, each with file, line and key, so that all are shown at once.
// Threads  thread-safe: no state.
// See      holdfast.conf(5)

#ifndef HOST_CONFIG_CONFIG_FILE_H_
#define HOST_CONFIG_CONFIG_FILE_H_

#include <string>
#include <vector>

#include "host/instance/instance.h"

namespace host {

// The tables.
inline constexpr char kConfigInstance[] = "instance";
inline constexpr char kConfigDaemon[] = "holdfastd";
inline constexpr char kConfigFetcher[] = "holdfast-fetcherd";

struct ConfigEntry {
  std::string file;
  int line = 0;
  std::string table;
  std::string key;
  std::string value;

  std::string Flag() const { return "--" + key + "=" + value; }
  std::string Place() const { return file + ":" + std::to_string(line); }
};

struct ConfigFault {
  std::string file;
  int line = 0;     // 0: the file as a whole.
  std::string key;  // "TABLE.KEY"; "" for what has none.
  std::string what;

  std::string Text() const;
};

struct Config {
  std::vector<ConfigEntry> entries;  // Those that count, by table and key.
  std::vector<ConfigFault> faults;
};

// Those that are there, in the order in which they are read.
std::vector<std::string> ConfigFilesOf(const Instance& instance);
Config ReadConfig(const Instance& instance);
// One file's; for ReadConfig and tests.
void ParseConfig(const std::string& file, const std::string& text, Config* config);

}  // namespace host

#endif  // HOST_CONFIG_CONFIG_FILE_H_
