#include "fetcher/http_answer.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fetcher/http_range.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

constexpr char kEtag[] = "etag";
constexpr char kLastModified[] = "last_modified";
constexpr char kDigest[] = "digest";

Failure Fail(Kind kind, int error, const std::string& url, const std::string& what) {
  return {kind, error, url + ": " + what, Duration::zero()};
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

// Statuses that are no answer to a range.
Failure JudgeStatus(const HttpAnswer& answer, const std::string& url) {
  Failure failure = Fail(Kind::kRefused, EIO, url, DescribeHttpStatus(answer.status));
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

// How the answer's validator differs from the pin, if it does.
std::optional<Failure> JudgePin(const HttpAnswer& answer, const Pin& pin, const std::string& url) {
  if (pin.kind == kEtag && !answer.etag.empty() && answer.etag != pin.value) {
    return Changed(url, "ETag", pin.value, answer.etag);
  }
  if (pin.kind == kLastModified && !answer.last_modified.empty() &&
      answer.last_modified != pin.value) {
    return Changed(url, "Last-Modified", pin.value, answer.last_modified);
  }
  return std::nullopt;
}

// A 200 to a request with If-Range says that the pin does not hold, unless its own validator says
// otherwise: then the origin has merely stopped to serve ranges.
Failure JudgeWhole(const HttpAnswer& answer, const ObjectVersion& version, const std::string& url) {
  if (auto changed = JudgePin(answer, version.pin, url)) return *changed;
  const bool same =
      (version.pin.kind == kEtag && answer.etag == version.pin.value) ||
      (version.pin.kind == kLastModified && answer.last_modified == version.pin.value) ||
      version.pin.kind.empty() || version.pin.kind == kDigest;
  if (answer.content_length && *answer.content_length != version.size_bytes &&
      answer.content_encoding.empty()) {
    return Changed(url, "size", std::to_string(version.size_bytes),
                   std::to_string(*answer.content_length));
  }
  if (same) return NoRanges(answer, url);
  return Changed(url, version.pin.kind == kEtag ? "ETag" : "Last-Modified", version.pin.value, "");
}

}  // namespace

ProbeResult JudgeProbe(const HttpAnswer& answer, const std::string& url) {
  ObjectVersion version;
  if (IsStrongEtag(answer.etag)) {
    version.pin = {kEtag, answer.etag};
  } else if (!answer.last_modified.empty() && IsPlainText(answer.last_modified)) {
    version.pin = {kLastModified, answer.last_modified};
  }
  if (version.pin.value.size() > Pin::kMaxValueSize) {
    return Fail(Kind::kRefused, EOPNOTSUPP, url, "its ETag is longer than 1024 bytes");
  }
  if (answer.status == 200) {
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
    return Fail(Kind::kRefused, EOPNOTSUPP, url, "origin encodes the object's content");
  }
  if (!range.ok() || !range->total || range->range != ByteRange{0, 1}) {
    return Fail(Kind::kRefused, EIO, url,
                "answered bytes 0-0 with Content-Range \"" + answer.content_range + "\"");
  }
  version.size_bytes = *range->total;
  return version;
}

std::optional<Failure> JudgeFetch(const HttpAnswer& answer, ByteRange range,
                                  const ObjectVersion& version, const std::string& url) {
  if (answer.status == 200) return JudgeWhole(answer, version, url);
  const auto parsed = ParseContentRange(answer.content_range);
  if (answer.status == 416) {
    const bool told = parsed.ok() && parsed->total;
    return Changed(url, "size", std::to_string(version.size_bytes),
                   told ? std::to_string(*parsed->total) : "less");
  }
  if (answer.status != 206) return JudgeStatus(answer, url);
  if (auto changed = JudgePin(answer, version.pin, url)) return changed;
  if (!answer.content_encoding.empty()) {
    return Fail(Kind::kRefused, EOPNOTSUPP, url, "origin encodes the object's content");
  }
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

Pin DigestPin(const std::string& digest) { return {kDigest, digest}; }

std::string IfRangeValue(const Pin& pin) {
  return pin.kind == kEtag || pin.kind == kLastModified ? pin.value : "";
}

}  // namespace fetcher
