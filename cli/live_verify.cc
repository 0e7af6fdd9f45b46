#include "cli/live_verify.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "cli/control_client.h"
#include "cli/deadline.h"
#include "cli/files.h"
#include "cli/mount_record.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr uint64_t kWindow = 64 << 20;
constexpr std::chrono::seconds kAnswerTime{60};  // To read a window, beside the patience.

// VOLUME/OBJECT of a mount point, or the name as it is.
std::string ObjectName(const Instance& instance, const std::string& name) {
  const std::unique_ptr<char, void (*)(void*)> path(realpath(name.c_str(), nullptr), std::free);
  for (const MountRecord& record : ListMountRecords(instance)) {
    if (record.mount_point == name || (path && record.mount_point == path.get())) {
      return record.volume + "/" + record.object;
    }
  }
  return name;
}

Result<json> FindObject(const Instance& instance, const std::string& name) {
  // Named, since a status lists so many and no more.
  const size_t slash = name.find('/');
  const json question = {
      {"op", "status"},
      {"volume", name.substr(0, slash)},
      {"object", slash == std::string::npos ? "" : name.substr(slash + 1)}};
  ASSIGN_OR_RETURN(const json status,
                   CallControl(instance.ControlSocket(), question, Deadline(kAnswerTime)));
  for (const json& object : JsonField(status, "objects")) {
    if (JsonString(object, "volume") + "/" + JsonString(object, "name") == name) return object;
  }
  return Status(ENOENT, name + ": neither a mount point nor an object of instance " +
                            instance.name() + " (holdfast status lists both)");
}

}  // namespace

Result<LiveVerifyReport> LiveVerify(
    const Instance& instance, const std::string& name, std::chrono::milliseconds patience,
    const std::function<void(const LiveVerifyReport&, uint64_t done)>& progress) {
  LiveVerifyReport report;
  report.name = ObjectName(instance, name);
  ASSIGN_OR_RETURN(const json object, FindObject(instance, report.name));
  report.digest = JsonString(object, "digest");
  report.size_bytes = static_cast<uint64_t>(JsonInt(object, "size"));
  for (uint64_t at = 0; at < report.size_bytes || at == 0;) {
    const json question = {{"op", "verify"},
                           {"number", JsonInt(object, "number")},
                           {"offset", at},
                           {"length", kWindow},
                           {"timeout_ms", patience.count()}};
    ASSIGN_OR_RETURN(const json answer, CallControl(instance.ControlSocket(), question,
                                                    Deadline(patience + kAnswerTime)));
    report.checked_bytes += static_cast<uint64_t>(JsonInt(answer, "checked"));
    report.wrong_bytes += static_cast<uint64_t>(JsonInt(answer, "wrong"));
    report.healed_bytes += static_cast<uint64_t>(JsonInt(answer, "healed"));
    if (report.error.empty()) report.error = JsonString(answer, "why");
    const auto next = static_cast<uint64_t>(JsonInt(answer, "next"));
    progress(report, std::min(next, report.size_bytes));
    if (next <= at) break;
    at = next;
  }
  return report;
}

}  // namespace cli
