#include "host/mounts/object_cause.h"

#include <chrono>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/protocol/control_messages.h"
#include "host/instance/control_client.h"

namespace host {
namespace {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::Deadline;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using control::Operation;
using nlohmann::json;

// A status that only explains is not waited for longer.
constexpr std::chrono::milliseconds kStatusTime{2000};

// Why a request for an object waits.
std::string CauseOf(const json& status, int64_t object) {
  for (const json& request : JsonField(JsonField(status, field::kRequests), field::kList)) {
    const std::string cause = JsonString(request, field::kCause);
    if (JsonInt(request, field::kObject) == object && !cause.empty()) return cause;
  }
  return "";
}

}  // namespace

std::string LastErrorOf(const Instance& instance, const MountRecord& record) {
  // Named, since a status lists so many and no more.
  const json question = control::EncodeRequest(
      {.operation = Operation::kStatus, .volume = record.volume, .object = record.object});
  const Result<json> status =
      CallControl(instance.ControlSocket(), question, Deadline(kStatusTime));
  if (!status.ok()) return "";
  for (const json& object : JsonField(*status, field::kObjects)) {
    if (JsonString(object, field::kVolume) != record.volume ||
        JsonString(object, field::kName) != record.object) {
      continue;
    }
    const std::string error = JsonString(object, field::kError);
    return error.empty() ? CauseOf(*status, JsonInt(object, field::kNumber)) : error;
  }
  return "";
}

std::string CauseOfOpen(const Instance& instance, const std::vector<std::string>& urls) {
  const Result<json> status =
      CallControl(instance.ControlSocket(),
                  control::EncodeRequest({.operation = Operation::kStatus}), Deadline(kStatusTime));
  if (!status.ok()) return "";
  for (const json& request : JsonField(JsonField(*status, field::kRequests), field::kList)) {
    const std::string cause = JsonString(request, field::kCause);
    if (JsonString(request, field::kOp) != control::kOpenRequest) continue;
    for (const std::string& url : urls) {
      if (cause.find(url) != std::string::npos) return cause;
    }
  }
  return "";
}

}  // namespace host
