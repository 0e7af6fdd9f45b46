// Content-Range headers and the few other header values that ranges need.  Pure.
//
// Errors   EBADMSG for what is not of the form of RFC 9110, 14.4.

#ifndef FETCHER_HTTP_HTTP_RANGE_H_
#define FETCHER_HTTP_HTTP_RANGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"

namespace fetcher {

struct ContentRange {
  std::optional<cachecore::ByteRange>
      range;                      // Absent: "bytes */SIZE", the range was not satisfiable.
  std::optional<uint64_t> total;  // Absent: "bytes A-B/*".
};

// "bytes 0-99/1000", "bytes 0-99/*" or "bytes */1000".
cachecore::Result<ContentRange> ParseContentRange(std::string_view value);

// The value of a Range request header: "0-99".  REQUIRES: not empty.
std::string FormatRange(cachecore::ByteRange range);

// Printable ASCII: validators of other bytes are not used, since JSON could not hold them exactly.
bool IsPlainText(std::string_view text);
// True for an entity tag that may stand in If-Range: quoted, not weak, plain text.
bool IsStrongEtag(std::string_view etag);

// "404 Not Found": the code with the words of the standard, whatever the server called it.
std::string DescribeHttpStatus(int code);

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_RANGE_H_
