// Settings: how an instance was started; kept for its supervisor in settings.json.
//
// Threads  immutable value.
// See      holdfast(1) FILES

#ifndef HOST_INSTANCE_SETTINGS_H_
#define HOST_INSTANCE_SETTINGS_H_

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "host/instance/instance.h"

namespace host {

inline constexpr char kCachefilesFlag[] = "--cachefiles-device=";

// A daemon's flag with dashes in its name, as all flags are written; gflags takes underscores, too.
std::string DashedFlag(std::string flag);

struct Settings {
  std::string cache_dir;  // "": the instance's own.
  std::vector<std::string> daemon_flags;
  std::vector<std::string> fetcher_flags;
  // How long a service may go without a sign of serving; 0: for ever.
  std::chrono::milliseconds watchdog = kDefaultWatchdog;
  bool keep_spare = true;  // Of holdfastd: host/supervisor/spare.h.
  // Name or number; "": holdfast-fetcher where there is such a user, else nobody.
  std::string fetcher_user = "";
  // Where metrics are served beside the Unix socket; "": nowhere.
  std::string metrics_listen = "";

  static constexpr std::chrono::milliseconds kDefaultWatchdog{30000};
  bool operator==(const Settings&) const = default;
  bool IsDefault() const { return *this == Settings(); }
  std::string CacheDirFor(const Instance& instance) const {
    return cache_dir.empty() ? instance.CacheDir() : cache_dir;
  }
  // "" without one.
  std::string CachefilesDevice() const;
  // It serves a program of the kernel's cachefiles interface, and has no fetcher.
  bool HasCachefilesDevice() const { return !CachefilesDevice().empty(); }
  nlohmann::json ToJson() const;
  // Flags that an earlier version has written with underscores become those with dashes.
  static Settings FromJson(const nlohmann::json& value);
};

// Of a settings.json: the part that a command line gave, without what configuration files said.
inline constexpr char kGivenSettings[] = "given";
Settings GivenSettings(const nlohmann::json& file);

// Of the settings that the instance was started with.
std::string CachefilesDevice(const Instance& instance);
// Of the instance's settings, or of the daemon that serves it now.  An error where neither tells
// it: `holdfast supervise` and systemd start instances without a settings file.
cachecore::Result<bool> HasCachefilesDevice(const Instance& instance);
// The same, and asks again, also a daemon that is being restarted, until `deadline`.
cachecore::Result<bool> HasCachefilesDevice(const Instance& instance,
                                            const cachecore::Deadline& deadline);

}  // namespace host

#endif  // HOST_INSTANCE_SETTINGS_H_
