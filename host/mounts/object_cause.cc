#include "host/mounts/object_cause.h"

#include <cerrno>
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

// A status that names the object: without that it lists so many and no more.
Result<json> AskOf(const Instance& instance, const MountRecord& record) {
  return CallControl(
      instance.ControlSocket(),
      control::EncodeRequest(
          {.operation = Operation::kStatus, .volume = record.volume, .object = record.object}),
      Deadline(kStatusTime));
}

// Null: the daemon does not know it.
json ObjectIn(const json& status, const MountRecord& record) {
  for (const json& object : JsonField(status, field::kObjects)) {
    if (JsonString(object, field::kVolume) == record.volume &&
        JsonString(object, field::kName) == record.object) {
      return object;
    }
  }
  return nullptr;
}

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
  const Result<json> status = AskOf(instance, record);
  if (!status.ok()) return "";
  const json object = ObjectIn(*status, record);
  if (object.is_null()) return "";
  const std::string error = JsonString(object, field::kError);
  return error.empty() ? CauseOf(*status, JsonInt(object, field::kNumber)) : error;
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

Result<std::string> WaitingReadsOf(const Instance& instance, const MountRecord& record) {
  const Result<json> status = AskOf(instance, record);
  if (status.status().error() == ETIMEDOUT) return status.status();
  if (!status.ok()) return std::string();
  const json object = ObjectIn(*status, record);
  if (object.is_null()) return std::string();
  int64_t reads = 0;
  for (const json& request : JsonField(JsonField(*status, field::kRequests), field::kList)) {
    if (JsonInt(request, field::kObject) == JsonInt(object, field::kNumber)) {
      reads += JsonInt(request, field::kWaiters);
    }
  }
  if (reads == 0) return std::string();
  const std::string cause = CauseOf(*status, JsonInt(object, field::kNumber));
  return std::to_string(reads) + (reads == 1 ? " read of it waits" : " reads of it wait") +
         (cause.empty() ? "" : ": " + cause);
}

}  // namespace host
