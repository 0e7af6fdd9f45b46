// What an HTTP origin's answer to a ranged GET means.  Pure: judges, does no I/O.
//
// Model    the header fields that matter, and the two judgements made with them: does a probe's
//          answer tell size and validator, and may the body of a fetch be written to the data file.
// Errors   Failure with the cause in words after `url`, which must be fit to be shown.
// See      docs/protocol.md "What the fetcher does with an origin's answer"; RFC 9110, 13 to 15.

#ifndef FETCHER_HTTP_HTTP_ANSWER_H_
#define FETCHER_HTTP_HTTP_ANSWER_H_

#include <optional>
#include <string>

#include "fetcher/transfer/backend.h"

namespace fetcher {

struct HttpAnswer {
  int status = 0;
  std::string content_range;
  std::string etag;
  std::string last_modified;
  std::string date;
  std::string content_encoding;
  std::string content_type;
  std::string www_authenticate;  // All of them, joined by ", ".
  std::string error_body;        // The beginning of a body that is not the object's.
  std::optional<uint64_t> content_length;
  Duration retry_after = Duration::zero();
};

// The longest wait that a Retry-After can ask for.
inline constexpr Duration kMaxRetryAfter = std::chrono::seconds(30);

// A status that is no answer to a range.
Failure JudgeStatus(const HttpAnswer& answer, const std::string& url);
// The answer to a GET of `asked`, which begins with the first byte.
ProbeResult JudgeProbe(const HttpAnswer& answer, const std::string& url, ByteRange asked = {0, 1});
// What tells one version from the next in this answer, "" if nothing does.
Pin PinOf(const HttpAnswer& answer);
// Whether it is the pinned version as a whole: the origin takes no range with this If-Range.
bool IsWholeOf(const HttpAnswer& answer, const ObjectVersion& version);
// nullopt: the body is `range` of `version`, or its beginning.
std::optional<Failure> JudgeFetch(const HttpAnswer& answer, ByteRange range,
                                  const ObjectVersion& version, const std::string& url);
// Of an object whose name is the digest of its bytes: validators of servers don't count.
Pin DigestPin(const std::string& digest);
// The value of If-Range for a pin, "" for none.
std::string IfRangeValue(const Pin& pin);

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_ANSWER_H_
