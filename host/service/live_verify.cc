#include "host/service/live_verify.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "host/instance/control_client.h"
#include "host/mounts/mount_record.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::Deadline;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using control::Operation;
using nlohmann::json;

constexpr uint64_t kWindow = 64 << 20;
constexpr std::chrono::seconds kAnswerTime{60};  // To read a window, beside the patience.

// VOLUME/OBJECT of a mount point, or the name as it is.
Result<std::string> ObjectName(const Instance& instance, const std::string& name) {
  const std::unique_ptr<char, void (*)(void*)> path(realpath(name.c_str(), nullptr), std::free);
  for (const MountRecord& record : ListMountRecords(instance)) {
    if (record.mount_point == name || (path && record.mount_point == path.get())) {
      if (record.layers.empty()) return record.volume + "/" + record.object;
      std::string list;
      for (const std::string& layer : record.layers) list += " " + layer;
      return Status(EINVAL,
                    name + " has " + std::to_string(record.layers.size()) +
                        " layers, and one image is verified at a time; name the layer:" + list);
    }
  }
  return name;
}

Result<json> FindObject(const Instance& instance, const std::string& name) {
  // Named, since a status lists so many and no more.
  const size_t slash = name.find('/');
  const json question =
      control::EncodeRequest({.operation = Operation::kStatus,
                              .volume = name.substr(0, slash),
                              .object = slash == std::string::npos ? "" : name.substr(slash + 1)});
  const Result<json> status =
      CallControl(instance.ControlSocket(), question, Deadline(kAnswerTime));
  if (!status.ok()) return WhyUnasked(instance, status.status());
  for (const json& object : JsonField(*status, field::kObjects)) {
    if (JsonString(object, field::kVolume) + "/" + JsonString(object, field::kName) == name)
      return object;
  }
  return Status(ENOENT, name + ": neither a mount point nor an object of instance " +
                            instance.name() + " (holdfast status lists both)");
}

}  // namespace

Result<LiveVerifyReport> LiveVerify(
    const Instance& instance, const std::string& name, std::chrono::milliseconds patience,
    const std::function<void(const LiveVerifyReport&, uint64_t done)>& progress) {
  LiveVerifyReport report;
  ASSIGN_OR_RETURN(report.name, ObjectName(instance, name));
  ASSIGN_OR_RETURN(const json object, FindObject(instance, report.name));
  report.digest = JsonString(object, field::kDigest);
  report.size_bytes = static_cast<uint64_t>(JsonInt(object, field::kSize));
  for (uint64_t at = 0; at < report.size_bytes || at == 0;) {
    const json question =
        control::EncodeRequest({.operation = Operation::kVerify,
                                .timeout_ms = patience.count(),
                                .number = static_cast<uint64_t>(JsonInt(object, field::kNumber)),
                                .offset = at,
                                .length = kWindow});
    ASSIGN_OR_RETURN(const json line, CallControl(instance.ControlSocket(), question,
                                                  Deadline(patience + kAnswerTime)));
    const control::VerifyAnswer answer = control::DecodeVerify(line);
    report.checked_bytes += answer.checked_bytes;
    report.wrong_bytes += answer.wrong_bytes;
    report.healed_bytes += answer.healed_bytes;
    if (report.error.empty()) report.error = answer.why;
    progress(report, std::min(answer.next, report.size_bytes));
    if (answer.next <= at) break;
    at = answer.next;
  }
  return report;
}

}  // namespace host
