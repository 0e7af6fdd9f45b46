// ScriptedStore: a MetadataStore without a disk, which keeps what it is given and fails when told.
//
// Threads  one thread.

#ifndef TESTS_CACHECORE_CACHE_SCRIPTED_STORE_H_
#define TESTS_CACHECORE_CACHE_SCRIPTED_STORE_H_

#include <functional>
#include <map>
#include <vector>

#include "tests/cachecore/store/forwarding_store.h"

namespace cachecore {

class ScriptedStore : public ForwardingStore {
 public:
  ScriptedStore() : ForwardingStore(nullptr) {}

  Status Commit(const MetadataBatch& batch, Sync) override {
    if (on_commit) on_commit(batch);
    if (trouble.ok()) batches.push_back(batch);
    return trouble;
  }
  Result<uint64_t> Reserve(Counter counter, uint64_t count) override {
    ++reserves;
    if (!trouble.ok()) return trouble;
    const uint64_t first = next[counter];
    next[counter] += count;
    return first;
  }
  Status Heal() override { return trouble; }

  Status trouble;  // What each call fails with.
  std::function<void(const MetadataBatch&)> on_commit;
  std::vector<MetadataBatch> batches;
  std::map<Counter, uint64_t> next;  // What Reserve gives.
  int reserves = 0;
};

}  // namespace cachecore

#endif  // TESTS_CACHECORE_CACHE_SCRIPTED_STORE_H_
