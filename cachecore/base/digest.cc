#include "cachecore/base/digest.h"

#include <glog/logging.h>
#include <openssl/evp.h>

#include "cachecore/base/hex.h"

namespace cachecore {
namespace {

constexpr std::string_view kAlgorithm = "sha256:";
constexpr size_t kHexDigits = 64;

}  // namespace

std::string DigestOfHash(std::string_view hash) { return std::string(kAlgorithm) + HexText(hash); }

std::string DigestOf(std::string_view contents) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  CHECK_EQ(EVP_Digest(contents.data(), contents.size(), hash, &length, EVP_sha256(), nullptr), 1)
      << "OpenSSL has no SHA-256";
  return DigestOfHash({reinterpret_cast<const char*>(hash), length});
}

bool IsDigest(std::string_view text) {
  return text.size() == kAlgorithm.size() + kHexDigits && text.starts_with(kAlgorithm) &&
         text.find_first_not_of("0123456789abcdef", kAlgorithm.size()) == std::string_view::npos;
}

std::string DigestHex(std::string_view digest) {
  CHECK(IsDigest(digest)) << digest;
  return std::string(digest.substr(kAlgorithm.size()));
}

}  // namespace cachecore
