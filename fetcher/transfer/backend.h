// Backend: one origin of objects, such as a directory or an HTTP server's path.
//
// Model    Probe learns an object's size and validator; Fetch brings a range of it into a data
//          file, or, where the bytes must be checked before they are written, to its sink. The
//          validator ("pin") is what tells one version of an object from the next.  A fetch checks
//          the origin's answer against size and pin before it writes its first byte, so that bytes
//          of two versions never mix.
// Errors   Failure: worth a retry, refused, changed since it was pinned, or ours (the data file).
// Threads  everything, callbacks included, on the one thread that runs the event loop.
// Owns     a Transfer is one operation under way; destroying it abandons it with no further
//          callback. Callbacks that end a transfer may destroy it; OnStored may not.  Transfers
//          must not outlive their backend, nor sinks and data files their transfer.

#ifndef FETCHER_TRANSFER_BACKEND_H_
#define FETCHER_TRANSFER_BACKEND_H_

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"

namespace fetcher {

using cachecore::ByteRange;
using cachecore::Duration;

// What an origin calls this version of an object.  Kind "" is an origin that gives no validator.
struct Pin {
  static constexpr size_t kMaxValueSize = 1024;

  // "etag", "last_modified", "stat" or "digest"; "weak_etag" and "weak_last_modified" tell a
  // change only sometimes: they are compared, and never sent in If-Range.
  std::string kind;
  std::string value;

  friend bool operator==(const Pin&, const Pin&) = default;
};

struct Failure {
  enum class Kind {
    kRetry,    // May go away by itself.
    kRefused,  // This origin will not serve this object; another one might.
    kChanged,  // The answer says that the origin has another version than the one pinned.
    kLocal,    // The data file could not be written to; no origin can help.
  };
  Kind kind = Kind::kRetry;
  int error = 0;                            // A positive errno.
  std::string cause;                        // One line, with the URL but no secret of it.
  Duration retry_after = Duration::zero();  // What the origin asked for.
  const char* reason = "other";             // In a word, for the count of retries.
};

struct ObjectVersion {
  uint64_t size_bytes = 0;
  Pin pin;
  uint64_t modified_s = 0;  // Since 1970; 0 with 0 ns is not known.
  uint32_t modified_ns = 0;
};

struct FetchRequest {
  std::string key;
  ByteRange range;        // Not empty, inside the object.
  ObjectVersion version;  // What the origin must still have.
  int data_fd = -1;       // None: the bytes go to the sink, by OnBytes.
  bool afresh = false;    // By a new connection, and past caches: what it said is doubted.
};

class FetchSink {
 public:
  // These bytes have come; in order, without a gap, from the first byte on.  Not kept by the
  // caller.  A failure ends the transfer.
  virtual std::optional<Failure> OnBytes(uint64_t offset, std::span<const char> bytes) {
    static_cast<void>(offset);
    static_cast<void>(bytes);
    return Failure{Failure::Kind::kLocal, EINVAL, "no sink takes these bytes"};
  }
  // These bytes are in the data file.  Ranges come in order, without a gap, from the first byte on.
  virtual void OnStored(ByteRange range) = 0;
  // All is stored, or what was not reported stored will not come.
  virtual void OnEnd(std::optional<Failure> failure) = 0;

 protected:
  ~FetchSink() = default;
};

class Transfer {
 public:
  virtual ~Transfer() = default;
};

using ProbeResult = std::variant<ObjectVersion, Failure>;
using ProbeDone = std::function<void(ProbeResult)>;

class Backend {
 public:
  virtual ~Backend() = default;
  // REQUIRES: CheckObjectKey(key).
  // `afresh` as in FetchRequest.
  virtual std::unique_ptr<Transfer> Probe(const std::string& key, bool afresh, ProbeDone done) = 0;
  virtual std::unique_ptr<Transfer> Fetch(FetchRequest request, FetchSink* sink) = 0;
  // The object's URL, fit to be shown.
  virtual std::string Describe(const std::string& key) const = 0;
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_BACKEND_H_
