// Durations and sizes as people write them in flags: "5s", "250ms", "2m", "64K", "4MiB", "0"; and
// the escapes of URLs.
//
// Errors   EINVAL with the text and what would be accepted.

#ifndef CACHECORE_PARSE_TEXT_H_
#define CACHECORE_PARSE_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "cachecore/clock.h"
#include "cachecore/status.h"

namespace cachecore {

// A decimal number and ms, s, m or h; a bare number is seconds.
Result<Duration> ParseDuration(const std::string& text);
// A whole number and nothing (bytes), K, M, G or T, with or without iB; powers of 1,024.
Result<uint64_t> ParseSize(const std::string& text);
// Undoes a URL's %XX.  EINVAL for a malformed escape or an escaped NUL.
Result<std::string> PercentDecode(std::string_view text);

}  // namespace cachecore

#endif  // CACHECORE_PARSE_TEXT_H_
