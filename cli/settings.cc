#include "cli/settings.h"

#include "cli/files.h"

namespace cli {

nlohmann::json Settings::ToJson() const {
  return {{"version", 1},
          {"cache_dir", cache_dir},
          {"daemon_flags", daemon_flags},
          {"fetcher_flags", fetcher_flags},
          {"watchdog_ms", watchdog.count()},
          {"keep_spare", keep_spare},
          {"fetcher_user", fetcher_user}};
}

Settings Settings::FromJson(const nlohmann::json& value) {
  return {JsonString(value, "cache_dir"), JsonStrings(value, "daemon_flags"),
          JsonStrings(value, "fetcher_flags"),
          std::chrono::milliseconds(JsonInt(value, "watchdog_ms", kDefaultWatchdog.count())),
          JsonBool(value, "keep_spare", true), JsonString(value, "fetcher_user")};
}

}  // namespace cli
