// VerifiedReader: bytes of a data file, checked against the object's digest.
//
// Model    every block's hash is looked for in the Merkle tree behind the object in the same file,
//          and each tree block's in the one above it, up to the digest.  Tree blocks that have been
//          checked are kept in a TreeCache.
// Errors   blocks that do not agree, or cannot be read, are a WrongRange; the others are right.
// Threads  thread-safe.  Reads the disk.
// Cost     a pread and a hash a block; a new leaf of the tree, another of each.

#ifndef CACHECORE_ENGINE_VERIFIED_READER_H_
#define CACHECORE_ENGINE_VERIFIED_READER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cachecore/engine/object.h"
#include "cachecore/verity/tree_cache.h"

namespace cachecore {

struct WrongRange {
  ByteRange range;  // Whole blocks of the object.
  std::string why;
  bool tree = false;  // A tree block above them is wrong; whether they are is not known.
};

// Reads [begin of `range`'s first block, end of its last) into `buffer` and checks it.  Empty: all
// of it is right.  REQUIRES: it fits.
std::vector<WrongRange> ReadVerified(int fd, const ObjectVerity& object, ByteRange range,
                                     std::span<uint8_t> buffer, TreeCache* trees);

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_VERIFIED_READER_H_
