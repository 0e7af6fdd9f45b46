// Settings: how an instance was started; kept for its supervisor in settings.json.
//
// Threads  immutable value.
// See      holdfast(1) SETTINGS

#ifndef CLI_SETTINGS_H_
#define CLI_SETTINGS_H_

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/status.h"
#include "cli/instance.h"

namespace cli {

struct Settings {
  std::string cache_dir;  // "": the instance's own.
  std::vector<std::string> daemon_flags;
  std::vector<std::string> fetcher_flags;
  // How long a service may go without a sign of serving; 0: for ever.
  std::chrono::milliseconds watchdog = kDefaultWatchdog;
  bool keep_spare = true;  // Of holdfastd: cli/spare.h.
  // Name or number; "": holdfast-fetcher where there is such a user, else nobody.
  std::string fetcher_user = "";

  static constexpr std::chrono::milliseconds kDefaultWatchdog{30000};
  bool IsDefault() const {
    return cache_dir.empty() && daemon_flags.empty() && fetcher_flags.empty() &&
           watchdog == kDefaultWatchdog && keep_spare && fetcher_user.empty();
  }
  std::string CacheDirFor(const Instance& instance) const {
    return cache_dir.empty() ? instance.CacheDir() : cache_dir;
  }
  nlohmann::json ToJson() const;
  static Settings FromJson(const nlohmann::json& value);
};

}  // namespace cli

#endif  // CLI_SETTINGS_H_
