// BlockHasher: SHA-256 of the blocks of Merkle trees and of what they cover.
//
// Model    several blocks at a time go to the multi-buffer library, where the program was built
//          with it, and one alone to OpenSSL, whose single hash is the faster.  The two are
//          compared once a process; if they differ, OpenSSL alone is used from then on.
// Units    blocks of kVerityBlock bytes; a last one that is short counts as padded with zeros.
// Threads  each thread has one of its own.
// Owns     in a thread that has hashed several blocks at a time: 200 KiB.
// See      docs/design.md "Digests".

#ifndef CACHECORE_VERITY_BLOCK_HASHER_H_
#define CACHECORE_VERITY_BLOCK_HASHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace cachecore {

inline constexpr uint64_t kVerityBlock = 4096;

using Digest = std::array<uint8_t, 32>;

class MultiHasher;

class BlockHasher {
 public:
  ~BlockHasher();
  BlockHasher(const BlockHasher&) = delete;
  BlockHasher& operator=(const BlockHasher&) = delete;

  static BlockHasher& OfThisThread();

  // Of one block.  REQUIRES: at most kVerityBlock bytes.
  Digest OfBlock(std::span<const uint8_t> bytes);
  // Of all blocks of `bytes`, into as many of `digests`.  REQUIRES: they fit.
  void OfBlocks(std::span<const uint8_t> bytes, std::span<Digest> digests);
  // fs-verity's digest of a file of that size and root hash.
  Digest OfFile(uint64_t size_bytes, const Digest& root_hash);

 private:
  BlockHasher();
  Digest Hash(std::span<const uint8_t> bytes);
  // Whether `multi` agrees with OpenSSL.
  bool Agrees(MultiHasher* multi);

  void* const algorithm_;  // EVP_MD.
  void* const context_;    // EVP_MD_CTX.
  std::unique_ptr<MultiHasher> multi_;
  bool multi_tried_ = false;
};

}  // namespace cachecore

#endif  // CACHECORE_VERITY_BLOCK_HASHER_H_
