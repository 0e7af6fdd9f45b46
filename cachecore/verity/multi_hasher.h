// MultiHasher: SHA-256 of several blocks at a time, by the processor's widest instructions.
//
// Model    intel-ipsec-mb hashes 2, 8 or 16 messages in the lanes of vector registers, on any x86;
//          a program that was built without it has none.
// Errors   Hash returns false when not every block was hashed; no digest counts then.
// Threads  thread-compatible.
// See      cachecore/verity/block_hasher.h, its only user.

#ifndef CACHECORE_VERITY_MULTI_HASHER_H_
#define CACHECORE_VERITY_MULTI_HASHER_H_

#include <cstdint>
#include <memory>
#include <span>

#include "cachecore/verity/block_hasher.h"

namespace cachecore {

class MultiHasher {
 public:
  // Null where there is none.
  static std::unique_ptr<MultiHasher> Make();
  ~MultiHasher();
  MultiHasher(const MultiHasher&) = delete;
  MultiHasher& operator=(const MultiHasher&) = delete;

  // Of as many whole blocks as there are digests.
  bool Hash(const uint8_t* blocks, std::span<Digest> digests);

 private:
  explicit MultiHasher(void* manager) : manager_(manager) {}

  void* const manager_;  // IMB_MGR.
};

}  // namespace cachecore

#endif  // CACHECORE_VERITY_MULTI_HASHER_H_
