#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"
#include "cli/command.h"
#include "host/config/config_settings.h"
#include "host/instance/instance_options.h"
#include "host/instance/privileges.h"

namespace cli {
namespace {

using cachecore::Deadline;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::WithoutControls;
using host::CheckConfig;
using host::Config;
using host::ConfigEntry;
using host::ConfigFault;
using host::Instance;
using host::InstanceOptions;
using nlohmann::json;

// To ask the daemons' programs about each flag.
constexpr std::chrono::minutes kAskTime{1};

struct ConfigOptions {
  InstanceOptions instance;
  bool json = false;
};

void Say(const std::vector<ConfigFault>& faults) {
  for (const ConfigFault& fault : faults) {
    std::cerr << "holdfast: " << WithoutControls(fault.Text()) << "\n";
  }
}

int RunCheck(const Instance& instance) {
  const Result<Config> config = CheckConfig(instance, Deadline(kAskTime));
  if (!config.ok()) return Fail(config.status());
  Say(config->faults);
  return config->faults.empty() ? kExitOk : kExitFailed;
}

// What the command that started the instance gave, which outweighs the files.
std::vector<std::string> GivenFlags(const Instance& instance) {
  const Result<json> file = cachecore::ReadJsonFile(instance.SettingsFile());
  if (!file.ok()) return {};
  const host::Settings given = host::GivenSettings(*file);
  std::vector<std::string> flags;
  const auto add = [&flags](const std::string& table, const std::string& flag) {
    flags.push_back(table + "." + flag);
  };
  if (!given.cache_dir.empty()) add(host::kConfigInstance, "cache-dir=" + given.cache_dir);
  if (!given.fetcher_user.empty()) add(host::kConfigInstance, "fetcher-user=" + given.fetcher_user);
  if (!given.metrics_listen.empty()) {
    add(host::kConfigInstance, "metrics-listen=" + given.metrics_listen);
  }
  if (!given.keep_spare) add(host::kConfigInstance, "no-spare=true");
  if (given.watchdog != host::Settings::kDefaultWatchdog) {
    add(host::kConfigInstance, "watchdog=" + std::to_string(given.watchdog.count()) + "ms");
  }
  for (const std::string& flag : given.daemon_flags) add(host::kConfigDaemon, flag.substr(2));
  for (const std::string& flag : given.fetcher_flags) add(host::kConfigFetcher, flag.substr(2));
  return flags;
}

int RunShow(const Instance& instance, bool as_json) {
  const Config config = host::ReadConfig(instance);
  json list = json::array();
  const std::vector<std::string> given = GivenFlags(instance);
  const auto is_given = [&given](const std::string& name) {
    for (const std::string& flag : given) {
      if (flag == name || flag.starts_with(name + "=")) return true;
    }
    return false;
  };
  for (const ConfigEntry& entry : config.entries) {
    const std::string name = entry.table + "." + entry.key;
    if (!is_given(name))
      list.push_back({{"key", name}, {"value", entry.value}, {"from", entry.Place()}});
  }
  for (const std::string& flag : given) {
    const size_t equals = std::min(flag.find('='), flag.size());
    const std::string value = equals == flag.size() ? "true" : flag.substr(equals + 1);
    list.push_back({{"key", flag.substr(0, equals)},
                    {"value", value},
                    {"from", "the command line that started the instance"}});
  }
  if (as_json) {
    std::cout << RecordText({{"version", 1}, {"settings", list}}, 2) << "\n";
  } else {
    for (const json& one : list) {
      std::cout << WithoutControls(one["key"].get<std::string>() + " = " +
                                   one["value"].get<std::string>() + "  # " +
                                   one["from"].get<std::string>())
                << "\n";
    }
  }
  Say(config.faults);
  return config.faults.empty() ? kExitOk : kExitFailed;
}

int RunWrite(const Instance& instance) {
  const Status rights = host::RequireRoot("writing an instance's flags");
  if (!rights.ok()) return Fail(rights);
  std::vector<ConfigFault> faults;
  const Status written = host::WriteFlagFiles(instance, Deadline(kAskTime), &faults);
  Say(faults);
  if (written.ok() && !faults.empty()) {
    std::cerr << "holdfast: instance " << instance.name() << " goes on with what it had before\n";
  }
  return written.ok() ? kExitOk : faults.empty() ? Fail(written) : kExitFailed;
}

}  // namespace

void AddConfig(CLI::App* app, int* exit_code) {
  app->require_subcommand(1);
  const auto options = std::make_shared<ConfigOptions>();
  const auto add = [&](const char* name, const char* what, auto run) {
    CLI::App* const verb = app->add_subcommand(name, what);
    options->instance.AddTo(verb);
    verb->callback([options, exit_code, run] {
      const Result<Instance> instance = options->instance.Make();
      *exit_code = instance.ok() ? run(*instance) : Fail(instance.status(), kExitUsage);
    });
    return verb;
  };
  add("check", "Say what is wrong in an instance's configuration files", RunCheck);
  add("show", "Show what applies, and where it is from", [options](const Instance& instance) {
    return RunShow(instance, options->json);
  })->add_flag("--json", options->json, "Print JSON");
  add("write", "Write the daemons' flags for systemd's units", RunWrite);
}

}  // namespace cli
