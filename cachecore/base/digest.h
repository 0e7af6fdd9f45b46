// Content digests: SHA-256 in the form that registries use, "sha256:" and 64 hex digits.
//
// Threads  thread-safe: no state.

#ifndef CACHECORE_BASE_DIGEST_H_
#define CACHECORE_BASE_DIGEST_H_

#include <string>
#include <string_view>

namespace cachecore {

// Of a SHA-256 that was computed elsewhere.
std::string DigestOfHash(std::string_view hash);
std::string DigestOf(std::string_view contents);
// Lower-case digits only, as every registry writes them.
bool IsDigest(std::string_view text);
// What stands behind "sha256:".  REQUIRES: IsDigest(digest).
std::string DigestHex(std::string_view digest);

}  // namespace cachecore

#endif  // CACHECORE_BASE_DIGEST_H_
