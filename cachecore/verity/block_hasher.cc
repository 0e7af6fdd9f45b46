#include "cachecore/verity/block_hasher.h"

#include <endian.h>
#include <glog/logging.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cachecore/verity/multi_hasher.h"

namespace cachecore {
namespace {

// Below this OpenSSL is done earlier: a lane takes its time, however few of them are in use.
constexpr size_t kFewestForMulti = 8;
// More than the lanes that there are, and not a multiple.
constexpr size_t kCompared = 37;

// struct fsverity_descriptor, little-endian.
struct Descriptor {
  uint8_t version = 1;
  uint8_t hash_algorithm = 1;  // SHA-256.
  uint8_t log_block_size = 12;
  uint8_t salt_size = 0;
  uint32_t reserved_zero = 0;
  uint64_t data_size = 0;
  uint8_t root_hash[64] = {};
  uint8_t salt[32] = {};
  uint8_t reserved[144] = {};
};
static_assert(sizeof(Descriptor) == 256);

}  // namespace

// Fetched once: looking an algorithm up costs as much as hashing a block.
BlockHasher::BlockHasher()
    : algorithm_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {
  CHECK(algorithm_ != nullptr && context_ != nullptr) << "OpenSSL has no SHA-256";
}

BlockHasher::~BlockHasher() {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_));
  EVP_MD_free(static_cast<EVP_MD*>(algorithm_));
}

BlockHasher& BlockHasher::OfThisThread() {
  static thread_local BlockHasher hasher;
  return hasher;
}

Digest BlockHasher::Hash(std::span<const uint8_t> bytes) {
  auto* const context = static_cast<EVP_MD_CTX*>(context_);
  Digest digest;
  CHECK(EVP_DigestInit_ex2(context, static_cast<const EVP_MD*>(algorithm_), nullptr) == 1 &&
        EVP_DigestUpdate(context, bytes.data(), bytes.size()) == 1 &&
        EVP_DigestFinal_ex(context, digest.data(), nullptr) == 1);
  return digest;
}

Digest BlockHasher::OfBlock(std::span<const uint8_t> bytes) {
  CHECK_LE(bytes.size(), kVerityBlock);
  if (bytes.size() == kVerityBlock) return Hash(bytes);
  std::array<uint8_t, kVerityBlock> padded = {};
  std::copy(bytes.begin(), bytes.end(), padded.begin());
  return Hash(padded);
}

bool BlockHasher::Agrees(MultiHasher* multi) {
  std::vector<uint8_t> bytes(kCompared * kVerityBlock);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 251);
  std::vector<Digest> digests(kCompared);
  if (!multi->Hash(bytes.data(), digests)) return false;
  for (size_t i = 0; i < kCompared; ++i) {
    if (Hash({&bytes[i * kVerityBlock], kVerityBlock}) != digests[i]) return false;
  }
  return true;
}

void BlockHasher::OfBlocks(std::span<const uint8_t> bytes, std::span<Digest> digests) {
  const size_t whole = bytes.size() / kVerityBlock;
  const size_t count = whole + (bytes.size() % kVerityBlock != 0);
  CHECK_LE(count, digests.size());
  size_t done = 0;
  if (whole >= kFewestForMulti) {
    if (!multi_tried_) {
      multi_tried_ = true;
      multi_ = MultiHasher::Make();
      if (multi_ != nullptr) {
        static const bool agrees = Agrees(multi_.get());
        LOG_IF(ERROR, !agrees) << "intel-ipsec-mb's SHA-256 is wrong on this machine; not used";
        if (!agrees) multi_.reset();
      }
    }
    if (multi_ != nullptr && multi_->Hash(bytes.data(), digests.subspan(0, whole))) done = whole;
  }
  for (; done < count; ++done) {
    const auto rest = bytes.subspan(done * kVerityBlock);
    digests[done] = OfBlock(rest.subspan(0, std::min<size_t>(rest.size(), kVerityBlock)));
  }
}

Digest BlockHasher::OfFile(uint64_t size_bytes, const Digest& root_hash) {
  Descriptor descriptor;
  descriptor.data_size = htole64(size_bytes);
  std::copy(root_hash.begin(), root_hash.end(), descriptor.root_hash);
  uint8_t bytes[sizeof(descriptor)];
  std::memcpy(bytes, &descriptor, sizeof(descriptor));
  return Hash(bytes);
}

}  // namespace cachecore
