#include "cachecore/verity/tree_cache.h"

namespace cachecore {

TreeBlockPtr TreeCache::Find(uint64_t owner, uint64_t tree_block) {
  MutexLock lock(&mu_);
  const auto it = blocks_.find({owner, tree_block});
  if (it == blocks_.end()) return nullptr;
  by_use_.splice(by_use_.begin(), by_use_, it->second.place);
  return it->second.block;
}

void TreeCache::Add(uint64_t owner, uint64_t tree_block, TreeBlockPtr block) {
  MutexLock lock(&mu_);
  const Key key{owner, tree_block};
  if (const auto it = blocks_.find(key); it != blocks_.end()) {
    it->second.block = std::move(block);
    return;
  }
  by_use_.push_front(key);
  blocks_.emplace(key, Entry{std::move(block), by_use_.begin()});
  while (blocks_.size() > capacity_) {
    blocks_.erase(by_use_.back());
    by_use_.pop_back();
  }
}

void TreeCache::Forget(uint64_t owner) {
  MutexLock lock(&mu_);
  auto it = blocks_.lower_bound({owner, 0});
  while (it != blocks_.end() && it->first.first == owner) {
    by_use_.erase(it->second.place);
    it = blocks_.erase(it);
  }
}

}  // namespace cachecore
