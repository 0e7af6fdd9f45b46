#include "fetcher/http/http_answer.h"

#include <curl/curl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fetcher/http/http_range.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

constexpr char kEtag[] = "etag";
constexpr char kLastModified[] = "last_modified";
constexpr char kWeakEtag[] = "weak_etag";
constexpr char kWeakLastModified[] = "weak_last_modified";
constexpr char kDigest[] = "digest";

// A file can be written twice in a second, so a date this close to the answer's is weak: RFC 9110,
// 8.8.2.2.
constexpr time_t kStrongAge = 60;

Failure Fail(Kind kind, int error, const std::string& url, const std::string& what) {
  return {kind, error, url + ": " + what, Duration::zero(), "answer"};
}

Failure Changed(const std::string& url, const std::string& name, const std::string& was,
                const std::string& is) {
  return Fail(Kind::kChanged, ESTALE, url,
              "changed since it was mounted (" + name + " was " + was + ", is " +
                  (is.empty() ? "none" : is) + ")");
}

Failure NoRanges(const HttpAnswer& answer, const std::string& url) {
  // A login or error page under status 200 is the usual reason.
  const bool page = answer.content_type.starts_with("text/html");
  return Fail(Kind::kRefused, EOPNOTSUPP, url,
              page ? "origin does not serve ranges (it answered with an HTML page)"
                   : "origin does not serve ranges");
}

bool IsEtag(const Pin& pin) { return pin.kind == kEtag || pin.kind == kWeakEtag; }
bool IsLastModified(const Pin& pin) {
  return pin.kind == kLastModified || pin.kind == kWeakLastModified;
}

// The field of the answer that the pin is about.
const std::string& FieldOf(const HttpAnswer& answer, const Pin& pin) {
  return IsEtag(pin) ? answer.etag : answer.last_modified;
}

const char* NameOf(const Pin& pin) { return IsEtag(pin) ? "ETag" : "Last-Modified"; }

// How the answer's validator differs from the pin, if it does.
std::optional<Failure> JudgePin(const HttpAnswer& answer, const Pin& pin, const std::string& url) {
  if (!IsEtag(pin) && !IsLastModified(pin)) return std::nullopt;
  const std::string& now = FieldOf(answer, pin);
  if (now.empty() || now == pin.value) return std::nullopt;
  return Changed(url, NameOf(pin), pin.value, now);
}

bool IsPage(const HttpAnswer& answer) { return answer.content_type.starts_with("text/html"); }

Failure Encoded(const HttpAnswer& answer, const std::string& url) {
  return Fail(
      Kind::kRefused, EOPNOTSUPP, url,
      "origin encodes the object's content (Content-Encoding: " + answer.content_encoding + ")");
}

// A 200 to a request with If-Range says that the pin does not hold, unless its own validator says
// otherwise: then the origin has merely stopped to serve ranges.
Failure JudgeWhole(const HttpAnswer& answer, const ObjectVersion& version, const std::string& url) {
  // An error page or a login page proves nothing about the object.
  if (IsPage(answer)) return Fail(Kind::kRetry, EIO, url, "answered with an HTML page");
  if (!answer.content_encoding.empty()) return Encoded(answer, url);
  if (answer.content_length == 0u && version.size_bytes > 0) {
    return Fail(Kind::kRetry, EIO, url, "answered with nothing");
  }
  if (auto changed = JudgePin(answer, version.pin, url)) return *changed;
  if (answer.content_length && *answer.content_length != version.size_bytes) {
    return Changed(url, "size", std::to_string(version.size_bytes),
                   std::to_string(*answer.content_length));
  }
  // The object in place of a range of it: this origin has stopped to serve ranges.
  if (IsWholeOf(answer, version) || IfRangeValue(version.pin).empty()) return NoRanges(answer, url);
  return Changed(url, NameOf(version.pin), version.pin.value, "");
}

std::optional<Failure> JudgePart(const HttpAnswer& answer, ByteRange range,
                                 const ObjectVersion& version, const std::string& url) {
  const auto parsed = ParseContentRange(answer.content_range);
  if (answer.status == 416) {
    if (parsed.ok() && parsed->total && *parsed->total != version.size_bytes) {
      return Changed(url, "size", std::to_string(version.size_bytes),
                     std::to_string(*parsed->total));
    }
    return Fail(Kind::kRetry, EIO, url, DescribeHttpStatus(answer.status));
  }
  if (answer.status != 206) return JudgeStatus(answer, url);
  if (auto changed = JudgePin(answer, version.pin, url)) return changed;
  if (!answer.content_encoding.empty()) return Encoded(answer, url);
  if (parsed.ok() && parsed->total && *parsed->total != version.size_bytes) {
    return Changed(url, "size", std::to_string(version.size_bytes), std::to_string(*parsed->total));
  }
  // An origin may send less than was asked for, but nothing else.
  if (!parsed.ok() || !parsed->range || parsed->range->begin != range.begin ||
      parsed->range->end > range.end) {
    return Fail(Kind::kRetry, EIO, url,
                "answered bytes " + FormatRange(range) + " with Content-Range \"" +
                    answer.content_range + "\"");
  }
  return std::nullopt;
}

}  // namespace

Failure JudgeStatus(const HttpAnswer& answer, const std::string& url) {
  Failure failure = Fail(Kind::kRefused, EIO, url, DescribeHttpStatus(answer.status));
  failure.reason = "status";
  switch (answer.status) {
    case 404:
    case 410:
      failure.error = ENOENT;
      break;
    case 401:
    case 403:
    case 407:
      failure.error = EACCES;
      break;
    case 408:
    case 425:
    case 429:
      failure.kind = Kind::kRetry;
      break;
    default:
      if (answer.status >= 500 && answer.status != 501) failure.kind = Kind::kRetry;
  }
  failure.retry_after = std::clamp(answer.retry_after, Duration::zero(), kMaxRetryAfter);
  return failure;
}

Pin PinOf(const HttpAnswer& answer) {
  if (IsStrongEtag(answer.etag)) return {kEtag, answer.etag};
  if (!answer.last_modified.empty() && IsPlainText(answer.last_modified)) {
    const time_t modified = curl_getdate(answer.last_modified.c_str(), nullptr);
    const time_t said = curl_getdate(answer.date.c_str(), nullptr);
    const bool is_strong = modified >= 0 && said >= 0 && said - modified >= kStrongAge;
    return {is_strong ? kLastModified : kWeakLastModified, answer.last_modified};
  }
  if (!answer.etag.empty() && IsPlainText(answer.etag)) return {kWeakEtag, answer.etag};
  return {};
}

bool IsWholeOf(const HttpAnswer& answer, const ObjectVersion& version) {
  const Pin& pin = version.pin;
  return answer.status == 200 && (IsEtag(pin) || IsLastModified(pin)) &&
         FieldOf(answer, pin) == pin.value && answer.content_length == version.size_bytes &&
         answer.content_encoding.empty() && !IsPage(answer);
}

ProbeResult JudgeProbe(const HttpAnswer& answer, const std::string& url, ByteRange asked) {
  ObjectVersion version;
  version.pin = PinOf(answer);
  const time_t modified = curl_getdate(answer.last_modified.c_str(), nullptr);
  if (modified > 0) version.modified_s = static_cast<uint64_t>(modified);
  if (version.pin.value.size() > Pin::kMaxValueSize) {
    return Fail(Kind::kRefused, EOPNOTSUPP, url, "its ETag is longer than 1024 bytes");
  }
  if (answer.status == 200) {
    if (!answer.content_encoding.empty()) return Encoded(answer, url);
    if (answer.content_length == 0u) return version;
    return NoRanges(answer, url);
  }
  if (answer.status != 206 && answer.status != 416) return JudgeStatus(answer, url);
  const auto range = ParseContentRange(answer.content_range);
  if (answer.status == 416) {
    if (range.ok() && range->total == 0u) return version;
    return JudgeStatus(answer, url);
  }
  if (!answer.content_encoding.empty()) {
    return Encoded(answer, url);
  }
  if (!range.ok() || !range->total || !range->range || range->range->begin != 0 ||
      range->range->end > asked.end) {
    return Fail(Kind::kRefused, EIO, url,
                "answered bytes " + FormatRange(asked) + " with Content-Range \"" +
                    answer.content_range + "\"");
  }
  version.size_bytes = *range->total;
  return version;
}

std::optional<Failure> JudgeFetch(const HttpAnswer& answer, ByteRange range,
                                  const ObjectVersion& version, const std::string& url) {
  if (answer.status == 200) return JudgeWhole(answer, version, url);
  return JudgePart(answer, range, version, url);
}

Pin DigestPin(const std::string& digest) { return {kDigest, digest}; }

std::string IfRangeValue(const Pin& pin) {
  return pin.kind == kEtag || pin.kind == kLastModified ? pin.value : "";
}

}  // namespace fetcher
