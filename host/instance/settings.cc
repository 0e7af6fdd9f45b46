#include "host/instance/settings.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <utility>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "host/instance/control_client.h"
#include "host/instance/instance_processes.h"
#include "host/instance/supervisor_process.h"

namespace host {

using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::JsonStrings;

namespace {

constexpr std::chrono::milliseconds kStatusTimeout{2000};

std::vector<std::string> DashedFlags(std::vector<std::string> flags) {
  for (std::string& flag : flags) flag = DashedFlag(std::move(flag));
  return flags;
}

}  // namespace

std::string DashedFlag(std::string flag) {
  const size_t name_end = std::min(flag.find('='), flag.size());
  std::replace(flag.begin(), flag.begin() + static_cast<std::ptrdiff_t>(name_end), '_', '-');
  return flag;
}

std::string Settings::CachefilesDevice() const {
  std::string device;
  for (const std::string& flag : daemon_flags) {
    if (flag.starts_with(kCachefilesFlag)) device = flag.substr(sizeof(kCachefilesFlag) - 1);
  }
  return device;
}

nlohmann::json Settings::ToJson() const {
  return {{"version", 1},
          {"cache_dir", cache_dir},
          {"daemon_flags", daemon_flags},
          {"fetcher_flags", fetcher_flags},
          {"watchdog_ms", watchdog.count()},
          {"keep_spare", keep_spare},
          {"fetcher_user", fetcher_user},
          {"metrics_listen", metrics_listen}};
}

Settings Settings::FromJson(const nlohmann::json& value) {
  return {JsonString(value, "cache_dir"),
          DashedFlags(JsonStrings(value, "daemon_flags")),
          DashedFlags(JsonStrings(value, "fetcher_flags")),
          std::chrono::milliseconds(JsonInt(value, "watchdog_ms", kDefaultWatchdog.count())),
          JsonBool(value, "keep_spare", true),
          JsonString(value, "fetcher_user"),
          JsonString(value, "metrics_listen")};
}

Settings GivenSettings(const nlohmann::json& file) {
  const nlohmann::json& given = JsonField(file, kGivenSettings);
  return Settings::FromJson(given.empty() ? file : given);
}

std::string CachefilesDevice(const Instance& instance) {
  const cachecore::Result<nlohmann::json> file = cachecore::ReadJsonFile(instance.SettingsFile());
  return file.ok() ? Settings::FromJson(*file).CachefilesDevice() : "";
}

namespace {

cachecore::Result<bool> AskForDevice(const Instance& instance,
                                     const cachecore::Deadline& deadline) {
  namespace control = cachecore::control;
  const cachecore::Result<nlohmann::json> file = cachecore::ReadJsonFile(instance.SettingsFile());
  if (file.ok() && Settings::FromJson(*file).HasCachefilesDevice()) return true;
  // One of `holdfast supervise` or of systemd has its flags from elsewhere.  No object has this name.
  const cachecore::Result<nlohmann::json> status =
      CallControl(instance.ControlSocket(),
                  control::EncodeRequest(
                      {.operation = control::Operation::kStatus, .volume = "/", .object = "/"}),
                  deadline);
  if (status.ok()) return !JsonField(*status, control::field::kCachefiles).empty();
  if (file.ok()) return false;
  if (status.status().error() == ENOENT) {  // Its files may be gone while it lives.
    for (const InstanceProcess& process : FindInstanceProcesses(instance)) {
      if (process.program != kDaemon) continue;
      Settings running;
      running.daemon_flags = process.arguments;
      return running.HasCachefilesDevice();
    }
  }
  return cachecore::Status(status.status().error(),
                           "whether instance " + instance.name() +
                               " serves a cachefiles device is not known: its daemon does not "
                               "answer (" +
                               status.status().message() + ")");
}

}  // namespace

cachecore::Result<bool> HasCachefilesDevice(const Instance& instance) {
  return AskForDevice(instance, cachecore::Deadline(kStatusTimeout));
}

cachecore::Result<bool> HasCachefilesDevice(const Instance& instance,
                                            const cachecore::Deadline& deadline) {
  const auto ask = [&] {
    const auto left = std::min<std::chrono::milliseconds>(kStatusTimeout, deadline.Remaining());
    return AskForDevice(instance, cachecore::Deadline(left));
  };
  cachecore::Result<bool> found = ask();
  const auto is_known = [&] {
    if (!found.ok()) found = ask();
    return found.ok();
  };
  const cachecore::Status waited = cachecore::WaitUntil(is_known, deadline);
  if (waited.error() == EINTR) return waited;
  return found;
}

}  // namespace host
