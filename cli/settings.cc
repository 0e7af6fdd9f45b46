#include "cli/settings.h"

#include "cli/files.h"

namespace cli {

nlohmann::json Settings::ToJson() const {
  return {{"version", 1},
          {"cache_dir", cache_dir},
          {"daemon_flags", daemon_flags},
          {"fetcher_flags", fetcher_flags}};
}

Settings Settings::FromJson(const nlohmann::json& value) {
  return {JsonString(value, "cache_dir"), JsonStrings(value, "daemon_flags"),
          JsonStrings(value, "fetcher_flags")};
}

}  // namespace cli
