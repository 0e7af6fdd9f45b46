// How long what names an object at its origins may be: the command line and the fetcher agree here.
//
// Units    bytes.
// See      cachecore/protocol/wire.h for the protocol's own: a key, an attr and a cause each have
//          room for what these limits allow, long URLs in a short form.

#ifndef CACHECORE_VALUES_LIMITS_H_
#define CACHECORE_VALUES_LIMITS_H_

#include <cstddef>

namespace cachecore {

inline constexpr size_t kMaxKeySize = 255;          // Volume key without its NUL.
inline constexpr size_t kMaxCookieKeySize = 252;    // What the kernel's on-disk name can hold.
inline constexpr size_t kUrlBytesMax = 16 << 10;    // Of an origin or an object, without its query.
inline constexpr size_t kQueryBytesMax = 16 << 10;  // With its '?'.
inline constexpr size_t kOriginsMax = 16;
// All of these and the paths of credentials, escaped as JSON.
inline constexpr size_t kSourceFileBytesMax = 1 << 20;
// A URL in a message, whose other words are needed too.
inline constexpr size_t kShownUrlBytesMax = 512;
// An origin's name in an attr.
inline constexpr size_t kPinNameBytesMax = 128;

}  // namespace cachecore

#endif  // CACHECORE_VALUES_LIMITS_H_
