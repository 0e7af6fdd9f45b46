// Control messages: what `holdfast` and holdfastd send each other on the control socket.
//
// Model    a connection carries one request and one answer, each a line of JSON.  Operations: ping,
//          status, acquire, keep, mounted, release, shut, verify, limit, pin, unpin, list, remove,
//          trace, history, stop; kOperations lists them.  An answer has "ok"; a refusal has "errno"
//          and "error" too.  What the other end does not know of a message it ignores, and a field
//          that is absent or of another type has its default, so that versions may differ.  The
//          answers to `status`, `list`, `limit` and `trace` are documents of many parts: only the
//          names of their fields are here.
// Units    times in milliseconds, sizes and offsets in bytes.
// Errors   EINVAL not a request, EOPNOTSUPP an unknown operation; EPROTO not an answer.
// Threads  thread-safe: no state.
// See      docs/protocol.md "The control socket"

#ifndef CACHECORE_PROTOCOL_CONTROL_MESSAGES_H_
#define CACHECORE_PROTOCOL_CONTROL_MESSAGES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"

namespace cachecore::control {

enum class Operation {
  kPing,
  kStatus,
  kAcquire,
  kKeep,
  kMounted,
  kRelease,
  kShut,
  kVerify,
  kLimit,
  kPin,
  kUnpin,
  kList,
  kRemove,
  kTrace,
  kHistory,
  kStop
};

struct OperationName {
  Operation operation;
  const char* name;
};
inline constexpr OperationName kOperations[] = {
    {Operation::kPing, "ping"},       {Operation::kStatus, "status"},
    {Operation::kAcquire, "acquire"}, {Operation::kKeep, "keep"},
    {Operation::kMounted, "mounted"}, {Operation::kRelease, "release"},
    {Operation::kShut, "shut"},       {Operation::kVerify, "verify"},
    {Operation::kLimit, "limit"},     {Operation::kPin, "pin"},
    {Operation::kUnpin, "unpin"},     {Operation::kList, "list"},
    {Operation::kRemove, "remove"},   {Operation::kTrace, "trace"},
    {Operation::kHistory, "history"}, {Operation::kStop, "stop"},
};

inline constexpr int64_t kDefaultTimeoutMs = 30'000;

struct Request {
  Operation operation = Operation::kPing;
  // Of status (both empty: all objects), acquire, keep, release, shut, pin, unpin, remove and
  // history.
  std::string volume = "";
  std::string object = "";
  // Of acquire, shut and verify.
  int64_t timeout_ms = kDefaultTimeoutMs;
  // Of acquire: look-ups find the object for so long; without it, until it is released.
  std::optional<uint64_t> lend_ms = std::nullopt;
  // Of acquire and shut: whether a mount may have a stale object replaced.  Absent: no mount asks.
  std::optional<bool> replace_stale = std::nullopt;
  // Of acquire, for an EROFS mount by `fsid`: kPrimary, which no other mount may use, or kShared.
  std::string mount = "";
  // Of mounted: the file system, "MAJOR:MINOR", and the volume's objects beside `object` that it
  // uses.
  std::string superblock = "";
  std::vector<std::string> shared = {};
  // Of verify: an object and a window of it.
  uint64_t number = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  // Of limit: as ParseLimitChange takes them.
  std::string max = "";
  std::string min_free = "";
  // Of remove: the cached bytes alone; only what is not pinned.
  bool bytes_only = false;
  bool unless_pinned = false;
  // Of trace: the last serial that was seen; absent: only what `after` is now is asked for.
  std::optional<uint64_t> after = std::nullopt;
  uint64_t over_us = 0;
  uint64_t since_us = 0;

  bool operator==(const Request&) const = default;
};

struct PingAnswer {
  int64_t pid = 0;
  std::string version;
};

struct AcquireAnswer {
  uint64_t number = 0;
  uint64_t size_bytes = 0;
  uint64_t present_bytes = 0;
  bool stale = false;
  std::string digest;  // "": the object has none.
  std::string path;
  std::string directory;  // Holds the object alone.
};

struct VerifyAnswer {
  uint64_t checked_bytes = 0;
  uint64_t wrong_bytes = 0;
  uint64_t healed_bytes = 0;
  uint64_t next = 0;  // The offset to go on at.
  std::string why;    // Of bytes that stay wrong.
};

struct RemoveAnswer {
  uint64_t removed_bytes = 0;  // Of the disk.
  uint64_t left_bytes = 0;     // In use, or being fetched.
};

// Fields of the answers to `status` and `list`, and of their parts.
namespace field {
inline constexpr char kOk[] = "ok";
inline constexpr char kVersion[] = "version";
inline constexpr char kPid[] = "pid";
inline constexpr char kStarted[] = "started";
inline constexpr char kDetachPolicy[] = "detach_policy";
inline constexpr char kGeneration[] = "generation";
inline constexpr char kStoreTrouble[] = "store_trouble";
inline constexpr char kCounters[] = "counters";
inline constexpr char kTotals[] = "totals";
// The fetcher; it has kPid, too.
inline constexpr char kFetcher[] = "fetcher";
inline constexpr char kAttached[] = "attached";
inline constexpr char kSince[] = "since";
// The cachefiles device, where there is one.
inline constexpr char kCachefiles[] = "cachefiles";
// A list of objects.
inline constexpr char kObjectCount[] = "object_count";
inline constexpr char kObjects[] = "objects";
inline constexpr char kNumber[] = "number";
inline constexpr char kVolume[] = "volume";
inline constexpr char kName[] = "name";
inline constexpr char kSize[] = "size";
inline constexpr char kPresent[] = "present";
inline constexpr char kState[] = "state";
inline constexpr char kStale[] = "stale";
inline constexpr char kFull[] = "full";
inline constexpr char kVerified[] = "verified";
inline constexpr char kDigest[] = "digest";
inline constexpr char kError[] = "error";
inline constexpr char kAllocated[] = "allocated";
inline constexpr char kUsed[] = "used";
inline constexpr char kPinned[] = "pinned";
inline constexpr char kMounted[] = "mounted";
// The cache's limits; they have kAllocated and kTotal, too.
inline constexpr char kCache[] = "cache";
inline constexpr char kMax[] = "max";
inline constexpr char kMaxBytes[] = "max_bytes";
inline constexpr char kMaxSource[] = "max_source";
inline constexpr char kMinFree[] = "min_free";
inline constexpr char kMinFreeBytes[] = "min_free_bytes";
inline constexpr char kMinFreeSource[] = "min_free_source";
inline constexpr char kApplies[] = "applies";
inline constexpr char kFree[] = "free";
inline constexpr char kTrouble[] = "trouble";
// The requests to the fetcher that wait, and the list of them.
inline constexpr char kRequests[] = "requests";
inline constexpr char kWaiting[] = "waiting";
inline constexpr char kTotal[] = "total";
inline constexpr char kOldestMs[] = "oldest_ms";
inline constexpr char kList[] = "list";
inline constexpr char kId[] = "id";
inline constexpr char kOp[] = "op";
inline constexpr char kObject[] = "object";
inline constexpr char kOffset[] = "offset";
inline constexpr char kLength[] = "length";
inline constexpr char kAgeMs[] = "age_ms";
inline constexpr char kWaiters[] = "waiters";
inline constexpr char kDelivered[] = "delivered";
inline constexpr char kPublished[] = "published";
inline constexpr char kCause[] = "cause";
// What has waited, and waits; it has kPid, too.
inline constexpr char kNowUs[] = "now_us";
inline constexpr char kNowUnixUs[] = "now_unix_us";
inline constexpr char kLast[] = "last";
inline constexpr char kIsAll[] = "is_all";
inline constexpr char kLost[] = "lost";
inline constexpr char kEnded[] = "ended";
inline constexpr char kReadsWaiting[] = "reads_waiting";
inline constexpr char kLeftOut[] = "left_out";
inline constexpr char kStartedUs[] = "started_us";
inline constexpr char kWaitedUs[] = "waited_us";
inline constexpr char kThread[] = "thread";
inline constexpr char kCommand[] = "command";
inline constexpr char kErrno[] = "errno";
inline constexpr char kWhy[] = "why";
// The past of an object; it has kSize, kStarted, kEnded, kReadsWaiting and the two kNow..., too.
inline constexpr char kDataFile[] = "data_file";
inline constexpr char kPresentRanges[] = "present_ranges";
inline constexpr char kReadRanges[] = "read_ranges";
inline constexpr char kCulledRanges[] = "culled_ranges";
inline constexpr char kFetches[] = "fetches";
inline constexpr char kDemanded[] = "demanded";
inline constexpr char kFilled[] = "filled";
}  // namespace field

// What an acquire's `mount` may be.
inline constexpr char kPrimary[] = "primary";
inline constexpr char kShared[] = "shared";

// What kOp of a waiting request may be.
inline constexpr char kOpenRequest[] = "OPEN";
inline constexpr char kReadRequest[] = "READ";
inline constexpr char kCloseRequest[] = "CLOSE";

const char* Name(Operation operation);

// Has the fields that are not at their defaults.
nlohmann::json EncodeRequest(const Request& request);
Result<Request> DecodeRequest(std::string_view line);

// An answer that says no more than that it was done.
nlohmann::json EncodeDone();
nlohmann::json EncodeRefusal(const Status& why);
nlohmann::json EncodePing(const PingAnswer& answer);
nlohmann::json EncodeAcquire(const AcquireAnswer& answer);
nlohmann::json EncodeVerify(const VerifyAnswer& answer);
nlohmann::json EncodeRemove(const RemoveAnswer& answer);

// The answer as an object; a refusal is its errno and sentence, and EIO where it has none.
// `answered`, where it is given, tells a refusal from a line that is no answer.
Result<nlohmann::json> DecodeAnswer(std::string_view line, bool* answered = nullptr);
PingAnswer DecodePing(const nlohmann::json& answer);
// EPROTO for an answer without a path.
Result<AcquireAnswer> DecodeAcquire(const nlohmann::json& answer);
VerifyAnswer DecodeVerify(const nlohmann::json& answer);
RemoveAnswer DecodeRemove(const nlohmann::json& answer);

}  // namespace cachecore::control

#endif  // CACHECORE_PROTOCOL_CONTROL_MESSAGES_H_
