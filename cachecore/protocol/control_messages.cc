#include "cachecore/protocol/control_messages.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <limits>

#include "cachecore/base/json_fields.h"

namespace cachecore::control {

using nlohmann::json;

namespace {

constexpr char kTimeoutMs[] = "timeout_ms";
constexpr char kLendMs[] = "lend_ms";
constexpr char kReplaceStale[] = "replace_stale";
constexpr char kMount[] = "mount";
constexpr char kSuperblock[] = "superblock";
constexpr char kSharedObjects[] = "shared";
constexpr char kPath[] = "path";
constexpr char kDirectory[] = "directory";
constexpr char kChecked[] = "checked";
constexpr char kWrong[] = "wrong";
constexpr char kHealed[] = "healed";
constexpr char kNext[] = "next";
constexpr char kBytesOnly[] = "bytes_only";
constexpr char kUnlessPinned[] = "unless_pinned";
constexpr char kAfter[] = "after";
constexpr char kOverUs[] = "over_us";
constexpr char kSinceUs[] = "since_us";
constexpr char kRemoved[] = "removed";
constexpr char kLeft[] = "left";

// The bytes as they were sent: what JsonString turns back is of files.
std::string TextOf(const json& object, const char* key) {
  const json& found = JsonField(object, key);
  return found.is_string() ? found.get<std::string>() : "";
}

std::optional<uint64_t> UnsignedOf(const json& object, const char* key) {
  const json& found = JsonField(object, key);
  if (!found.is_number_unsigned()) return std::nullopt;
  return found.get<uint64_t>();
}

std::string OperationNames() {
  std::string names;
  for (const OperationName& known : kOperations) {
    names += std::string(names.empty() ? "" : ", ") + known.name;
  }
  return names;
}

}  // namespace

const char* Name(Operation operation) {
  const auto* const known = std::find_if(
      std::begin(kOperations), std::end(kOperations),
      [operation](const OperationName& entry) { return entry.operation == operation; });
  return known == std::end(kOperations) ? "" : known->name;
}

json EncodeRequest(const Request& request) {
  const Request defaults;
  json object = {{field::kOp, Name(request.operation)}};
  if (!request.volume.empty()) object[field::kVolume] = request.volume;
  if (!request.object.empty()) object[field::kObject] = request.object;
  if (request.timeout_ms != defaults.timeout_ms) object[kTimeoutMs] = request.timeout_ms;
  if (request.lend_ms) object[kLendMs] = *request.lend_ms;
  if (request.replace_stale) object[kReplaceStale] = *request.replace_stale;
  if (!request.mount.empty()) object[kMount] = request.mount;
  if (!request.superblock.empty()) object[kSuperblock] = request.superblock;
  if (!request.shared.empty()) object[kSharedObjects] = request.shared;
  if (request.number != 0) object[field::kNumber] = request.number;
  if (request.offset != 0) object[field::kOffset] = request.offset;
  if (request.length != 0) object[field::kLength] = request.length;
  if (!request.max.empty()) object[field::kMax] = request.max;
  if (!request.min_free.empty()) object[field::kMinFree] = request.min_free;
  if (request.bytes_only) object[kBytesOnly] = true;
  if (request.unless_pinned) object[kUnlessPinned] = true;
  if (request.after) object[kAfter] = *request.after;
  if (request.over_us != 0) object[kOverUs] = request.over_us;
  if (request.since_us != 0) object[kSinceUs] = request.since_us;
  return object;
}

Result<Request> DecodeRequest(std::string_view line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  const json& op = JsonField(object, field::kOp);
  if (!op.is_string()) {
    return Status(EINVAL, "a request is one line of JSON, an object with \"op\"");
  }
  const auto* const known =
      std::find_if(std::begin(kOperations), std::end(kOperations),
                   [&op](const OperationName& entry) { return op == entry.name; });
  if (known == std::end(kOperations)) {
    return Status(EOPNOTSUPP, "unknown op; there are " + OperationNames());
  }
  Request request;
  request.operation = known->operation;
  request.volume = TextOf(object, field::kVolume);
  request.object = TextOf(object, field::kObject);
  if (const std::optional<uint64_t> timeout_ms = UnsignedOf(object, kTimeoutMs)) {
    request.timeout_ms =
        static_cast<int64_t>(std::min<uint64_t>(*timeout_ms, std::numeric_limits<int64_t>::max()));
  }
  request.lend_ms = UnsignedOf(object, kLendMs);
  if (object.contains(kReplaceStale)) {
    request.replace_stale = JsonBool(object, kReplaceStale);
  }
  request.mount = TextOf(object, kMount);
  request.superblock = TextOf(object, kSuperblock);
  request.shared = JsonStrings(object, kSharedObjects);
  request.number = UnsignedOf(object, field::kNumber).value_or(0);
  request.offset = UnsignedOf(object, field::kOffset).value_or(0);
  request.length = UnsignedOf(object, field::kLength).value_or(0);
  request.max = TextOf(object, field::kMax);
  request.min_free = TextOf(object, field::kMinFree);
  request.bytes_only = JsonBool(object, kBytesOnly);
  request.unless_pinned = JsonBool(object, kUnlessPinned);
  request.after = UnsignedOf(object, kAfter);
  request.over_us = UnsignedOf(object, kOverUs).value_or(0);
  request.since_us = UnsignedOf(object, kSinceUs).value_or(0);
  return request;
}

json EncodeDone() { return {{field::kOk, true}}; }

json EncodeRefusal(const Status& why) {
  return {{field::kOk, false}, {field::kErrno, why.error()}, {field::kError, why.message()}};
}

json EncodePing(const PingAnswer& answer) {
  return {{field::kOk, true}, {field::kPid, answer.pid}, {field::kVersion, answer.version}};
}

json EncodeAcquire(const AcquireAnswer& answer) {
  return {{field::kOk, true},
          {field::kNumber, answer.number},
          {field::kSize, answer.size_bytes},
          {field::kPresent, answer.present_bytes},
          {field::kStale, answer.stale},
          {field::kDigest, answer.digest},
          {kPath, answer.path},
          {kDirectory, answer.directory}};
}

json EncodeVerify(const VerifyAnswer& answer) {
  return {{field::kOk, true},           {kChecked, answer.checked_bytes},
          {kWrong, answer.wrong_bytes}, {kHealed, answer.healed_bytes},
          {kNext, answer.next},         {field::kWhy, answer.why}};
}

json EncodeRemove(const RemoveAnswer& answer) {
  return {{field::kOk, true}, {kRemoved, answer.removed_bytes}, {kLeft, answer.left_bytes}};
}

Result<json> DecodeAnswer(std::string_view line, bool* answered) {
  if (answered != nullptr) *answered = false;
  json answer = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) return Status(EPROTO, "the answer is not JSON");
  if (answered != nullptr) *answered = true;
  if (!JsonBool(answer, field::kOk)) {
    const int64_t error = JsonInt(answer, field::kErrno, EIO);
    const bool is_errno = error > 0 && error <= std::numeric_limits<int>::max();
    return Status(is_errno ? static_cast<int>(error) : EIO,
                  JsonString(answer, field::kError, "refused without a reason"));
  }
  return answer;
}

PingAnswer DecodePing(const json& answer) {
  return {JsonInt(answer, field::kPid), JsonString(answer, field::kVersion)};
}

Result<AcquireAnswer> DecodeAcquire(const json& answer) {
  AcquireAnswer decoded;
  decoded.number = static_cast<uint64_t>(JsonInt(answer, field::kNumber));
  decoded.size_bytes = static_cast<uint64_t>(JsonInt(answer, field::kSize));
  decoded.present_bytes = static_cast<uint64_t>(JsonInt(answer, field::kPresent));
  decoded.stale = JsonBool(answer, field::kStale);
  decoded.digest = JsonString(answer, field::kDigest);
  decoded.path = JsonString(answer, kPath);
  decoded.directory = JsonString(answer, kDirectory);
  if (decoded.path.empty() || decoded.directory.empty()) {
    return Status(EPROTO, "the daemon's answer to acquire has no path");
  }
  return decoded;
}

VerifyAnswer DecodeVerify(const json& answer) {
  VerifyAnswer decoded;
  decoded.checked_bytes = static_cast<uint64_t>(JsonInt(answer, kChecked));
  decoded.wrong_bytes = static_cast<uint64_t>(JsonInt(answer, kWrong));
  decoded.healed_bytes = static_cast<uint64_t>(JsonInt(answer, kHealed));
  decoded.next = static_cast<uint64_t>(JsonInt(answer, kNext));
  decoded.why = JsonString(answer, field::kWhy);
  return decoded;
}

RemoveAnswer DecodeRemove(const json& answer) {
  return {static_cast<uint64_t>(JsonInt(answer, kRemoved)),
          static_cast<uint64_t>(JsonInt(answer, kLeft))};
}

}  // namespace cachecore::control
