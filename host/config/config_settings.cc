#include "host/config/config_settings.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "cachecore/base/parse_text.h"
#include "cachecore/system/files.h"
#include "cachecore/system/subprocess.h"
#include "host/config/loopback_address.h"
#include "host/instance/fetcher_user.h"
#include "host/instance/supervisor_process.h"
#include "host/instance/trusted_directory.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::FindProgram;
using cachecore::Result;
using cachecore::RunProgram;
using cachecore::Status;
using std::chrono::milliseconds;

struct Program {
  const char* table;
  const char* name;
  std::vector<std::string> required;  // What it does not start without.
};

std::vector<Program> Programs() {
  return {{kConfigDaemon, kDaemon, {"--cache-dir=/-", "--run-dir=/-"}},
          {kConfigFetcher, kFetcherProgram, {"--device=/-", "--sources-dir=/-"}}};
}

bool IsOn(const std::string& value) { return value == "true" || value == "1"; }

// What is wrong with a value of [instance]; "" when nothing is.
std::string WhyWrong(const ConfigEntry& entry) {
  if (entry.key == "cache-dir") {
    if (!entry.value.starts_with('/')) return "it must be an absolute path";
    return cachecore::IsRootDirectory(entry.value) ? "it is the root directory" : "";
  }
  if (entry.key == "no-spare") {
    const bool is_flag = IsOn(entry.value) || entry.value == "false" || entry.value == "0";
    return is_flag ? "" : "it is true or false";
  }
  if (entry.key == "watchdog") {
    const Result<cachecore::Duration> time = cachecore::ParseDuration(entry.value);
    return time.ok() ? "" : time.status().message();
  }
  if (entry.key == "metrics-listen") {
    const Status listen = CheckLoopback(entry.value);
    return listen.ok() ? "" : listen.message();
  }
  const Result<FetcherUser> user = FindFetcherUser(entry.value);
  return user.ok() ? "" : user.status().message();
}

// The last line of what a program says, without what stands before its message.
std::string Complaint(std::string output, const std::string& program) {
  while (!output.empty() && output.back() == '\n') output.pop_back();
  output.erase(0, output.rfind('\n') + 1);
  for (const std::string& before : {program + ": ", std::string("ERROR: ")}) {
    if (output.starts_with(before)) output.erase(0, before.size());
  }
  return output.empty() ? program + " does not take it" : output;
}

// "": it takes them.
Result<std::string> AskProgram(const Program& program, const std::vector<std::string>& flags,
                               const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::string path, FindProgram(program.name));
  std::vector<std::string> argv = {path, "--check-flags"};
  argv.insert(argv.end(), program.required.begin(), program.required.end());
  argv.insert(argv.end(), flags.begin(), flags.end());
  ASSIGN_OR_RETURN(const cachecore::ProgramEnd end, RunProgram(argv, deadline));
  return end.exit_code == 0 ? "" : Complaint(end.output, program.name);
}

std::vector<std::string> FlagsOf(const Config& config, const std::string& table) {
  std::vector<std::string> flags;
  for (const ConfigEntry& entry : config.entries) {
    if (entry.table == table) flags.push_back(entry.Flag());
  }
  return flags;
}

Status AskEach(const Program& program, const Deadline& deadline, Config* config) {
  const std::vector<std::string> all = FlagsOf(*config, program.table);
  if (all.empty()) return {};
  ASSIGN_OR_RETURN(const std::string together, AskProgram(program, all, deadline));
  if (together.empty()) return {};
  bool is_found = false;
  const ConfigEntry* last = nullptr;
  for (const ConfigEntry& entry : config->entries) {
    if (entry.table != program.table) continue;
    last = &entry;
    ASSIGN_OR_RETURN(const std::string why, AskProgram(program, {entry.Flag()}, deadline));
    if (why.empty()) continue;
    is_found = true;
    config->faults.push_back({entry.file, entry.line, entry.table + "." + entry.key, why});
  }
  // Each is right by itself.
  if (!is_found) config->faults.push_back({last->file, 0, program.table, together});
  return {};
}

std::string FlagFile(const Instance& instance, const Program& program) {
  return instance.RunDir() + "/" + program.name + ".flags";
}

}  // namespace

Result<Config> CheckConfig(const Instance& instance, const Deadline& deadline) {
  Config config = ReadConfig(instance);
  for (const ConfigEntry& entry : config.entries) {
    if (entry.table != kConfigInstance) continue;
    if (const std::string why = WhyWrong(entry); !why.empty()) {
      config.faults.push_back({entry.file, entry.line, entry.table + "." + entry.key, why});
    }
  }
  for (const Program& program : Programs()) {
    RETURN_IF_ERROR(AskEach(program, deadline, &config));
  }
  return config;
}

std::string FaultsText(const Instance& instance, const std::vector<ConfigFault>& faults) {
  const std::string first = faults.front().Text();
  if (faults.size() == 1) return first;
  const size_t more = faults.size() - 1;
  return first + "; and " + (more == 1 ? "one more fault" : std::to_string(more) + " more faults") +
         " (holdfast config check" + instance.Flags() + ")";
}

Result<Settings> WithConfig(const Instance& instance, const Settings& given,
                            const Deadline& deadline) {
  ASSIGN_OR_RETURN(const Config config, CheckConfig(instance, deadline));
  if (!config.faults.empty()) return Status(EINVAL, FaultsText(instance, config.faults));
  Settings settings = given;
  settings.daemon_flags = FlagsOf(config, kConfigDaemon);
  settings.fetcher_flags = FlagsOf(config, kConfigFetcher);
  // The later one counts.
  settings.daemon_flags.insert(settings.daemon_flags.end(), given.daemon_flags.begin(),
                               given.daemon_flags.end());
  settings.fetcher_flags.insert(settings.fetcher_flags.end(), given.fetcher_flags.begin(),
                                given.fetcher_flags.end());
  for (const ConfigEntry& entry : config.entries) {
    if (entry.table != kConfigInstance) continue;
    if (entry.key == "cache-dir" && given.cache_dir.empty()) settings.cache_dir = entry.value;
    if (entry.key == "fetcher-user" && given.fetcher_user.empty()) {
      settings.fetcher_user = entry.value;
    }
    if (entry.key == "metrics-listen" && given.metrics_listen.empty()) {
      settings.metrics_listen = entry.value;
    }
    if (entry.key == "no-spare" && IsOn(entry.value)) settings.keep_spare = false;
    if (entry.key == "watchdog" && given.watchdog == Settings::kDefaultWatchdog) {
      const Result<cachecore::Duration> time = cachecore::ParseDuration(entry.value);
      if (time.ok()) settings.watchdog = std::chrono::ceil<milliseconds>(*time);
    }
  }
  return settings;
}

std::string ConfiguredCacheDir(const Instance& instance, const Settings& given) {
  Settings settings = given;
  if (settings.cache_dir.empty()) {
    for (const ConfigEntry& entry : ReadConfig(instance).entries) {
      const bool is_it = entry.table == kConfigInstance && entry.key == "cache-dir";
      if (is_it && entry.value.starts_with('/')) settings.cache_dir = entry.value;
    }
  }
  return settings.CacheDirFor(instance);
}

Status WriteFlagFiles(const Instance& instance, const Deadline& deadline,
                      std::vector<ConfigFault>* faults) {
  RETURN_IF_ERROR(MakeTrustedDirectory(instance.RunDir(), 0700));
  const Result<Config> config = CheckConfig(instance, deadline);
  bool has_flags = true;
  for (const Program& program : Programs()) {
    has_flags = has_flags && access(FlagFile(instance, program).c_str(), F_OK) == 0;
  }
  if (!config.ok()) {
    if (has_flags) faults->push_back({instance.ConfigFile(), 0, "", config.status().message()});
    return has_flags ? Status() : config.status();
  }
  *faults = config->faults;
  if (!faults->empty()) return has_flags ? Status() : Status(EINVAL, FaultsText(instance, *faults));
  for (const Program& program : Programs()) {
    std::string text;
    for (const std::string& flag : FlagsOf(*config, program.table)) text += flag + "\n";
    RETURN_IF_ERROR(cachecore::WriteFileAtomically(FlagFile(instance, program), text, 0600));
  }
  return {};
}

}  // namespace host
