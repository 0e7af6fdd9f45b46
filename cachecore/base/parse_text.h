// Durations and sizes as people write them in flags: "5s", "250ms", "2m", "64K", "4MiB", "0"; and
// the escapes of URLs.
//
// Errors   EINVAL with the text and what would be accepted.

#ifndef CACHECORE_BASE_PARSE_TEXT_H_
#define CACHECORE_BASE_PARSE_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"

namespace cachecore {

// A decimal number and ms, s, m or h; a bare number is seconds.
Result<Duration> ParseDuration(const std::string& text);
// A whole number and nothing (bytes), K, M, G or T, with or without iB; powers of 1,024.
Result<uint64_t> ParseSize(const std::string& text);

// A size, or a part of something whose size is known later.
struct SizeOrPercent {
  uint64_t bytes = 0;
  uint32_t percent = 0;  // 0: `bytes` counts.

  uint64_t Of(uint64_t whole) const { return percent > 0 ? whole / 100 * percent : bytes; }
  bool operator==(const SizeOrPercent&) const = default;
};
// As ParseSize, or from "1%" to "100%".
Result<SizeOrPercent> ParseSizeOrPercent(const std::string& text);
// Undoes a URL's %XX.  EINVAL for a malformed escape or an escaped NUL.
Result<std::string> PercentDecode(std::string_view text);

// Of ASCII letters.
std::string LowerCase(std::string text);

}  // namespace cachecore

#endif  // CACHECORE_BASE_PARSE_TEXT_H_
