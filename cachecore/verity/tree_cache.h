// TreeCache: Merkle tree blocks that have been checked; the least recently used ones go first.
//
// Model    a block is in here only if its hash was that in its parent, or, for a root, if it
//          agrees with the digest.  An owner is an object.
// Threads  thread-safe; a leaf lock.
// Cost     about 4.2 KiB a block, at most `capacity` blocks; blocks in use outlive their place.

#ifndef CACHECORE_VERITY_TREE_CACHE_H_
#define CACHECORE_VERITY_TREE_CACHE_H_

#include <cstdint>
#include <list>
#include <map>
#include <utility>

#include "cachecore/base/mutex.h"
#include "cachecore/verity/verity_tree.h"

namespace cachecore {

class TreeCache {
 public:
  explicit TreeCache(size_t capacity) : capacity_(capacity) {}

  // Null if it is not there.
  TreeBlockPtr Find(uint64_t owner, uint64_t tree_block) EXCLUDES(mu_);
  void Add(uint64_t owner, uint64_t tree_block, TreeBlockPtr block) EXCLUDES(mu_);
  void Forget(uint64_t owner) EXCLUDES(mu_);

 private:
  using Key = std::pair<uint64_t, uint64_t>;
  struct Entry {
    TreeBlockPtr block;
    std::list<Key>::iterator place;
  };

  const size_t capacity_;
  Mutex mu_;
  std::map<Key, Entry> blocks_ GUARDED_BY(mu_);
  std::list<Key> by_use_ GUARDED_BY(mu_);  // The last used first.
};

}  // namespace cachecore

#endif  // CACHECORE_VERITY_TREE_CACHE_H_
