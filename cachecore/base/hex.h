// Bytes as text: hexadecimal digits and back, and what people are shown.
//
// Threads  thread-safe: no state.

#ifndef CACHECORE_BASE_HEX_H_
#define CACHECORE_BASE_HEX_H_

#include <optional>
#include <string>
#include <string_view>

namespace cachecore {

// Two digits for each byte, in lower case.
std::string HexText(std::string_view bytes);
// The same in upper case, as escapes of URLs are written.
std::string UpperHexText(std::string_view bytes);
// The value of one digit in either case; -1: it is none.
int HexValue(char digit);
// Undoes HexText, in either case; nullopt for an odd length or what is no digit.
std::optional<std::string> BytesOfHex(std::string_view text);

// A control character would break the line, or command the terminal: as in /proc/mounts, it is a
// backslash and its three octal digits.
std::string WithoutControls(std::string_view text);

}  // namespace cachecore

#endif  // CACHECORE_BASE_HEX_H_
