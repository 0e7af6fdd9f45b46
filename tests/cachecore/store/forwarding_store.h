// ForwardingStore: a MetadataStore that hands every call on to another one, for tests to override.

#ifndef TESTS_CACHECORE_STORE_FORWARDING_STORE_H_
#define TESTS_CACHECORE_STORE_FORWARDING_STORE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/store/metadata_store.h"

namespace cachecore {

class ForwardingStore : public MetadataStore {
 public:
  explicit ForwardingStore(std::unique_ptr<MetadataStore> store) : store_(std::move(store)) {}

  Result<uint64_t> Reserve(Counter counter, uint64_t count) override {
    return store_->Reserve(counter, count);
  }
  Status Commit(const MetadataBatch& batch, Sync sync) override {
    return store_->Commit(batch, sync);
  }
  Result<std::optional<VolumeRecord>> FindVolume(const std::string& key) override {
    return store_->FindVolume(key);
  }
  Result<std::optional<VolumeRecord>> LoadVolume(ObjectNumber number) override {
    return store_->LoadVolume(number);
  }
  Result<std::optional<ObjectNumber>> FindObject(ObjectNumber volume,
                                                 const std::string& cookie) override {
    return store_->FindObject(volume, cookie);
  }
  Result<std::optional<ObjectRecord>> LoadObject(ObjectNumber number) override {
    return store_->LoadObject(number);
  }
  Result<PresenceMap> LoadPresence(ObjectNumber object, uint64_t size_bytes) override {
    return store_->LoadPresence(object, size_bytes);
  }
  Result<PresenceMap> LoadDurablePresence(ObjectNumber object, uint64_t size_bytes) override {
    return store_->LoadDurablePresence(object, size_bytes);
  }
  std::vector<UseRecord> LoadUses(ObjectNumber object) override { return store_->LoadUses(object); }
  Result<std::vector<ObjectNumber>> FindUndurable() override { return store_->FindUndurable(); }
  Result<std::vector<Choice>> LoadChoices() override { return store_->LoadChoices(); }
  Result<std::vector<JournalRecord>> LoadJournal() override { return store_->LoadJournal(); }
  Status ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit) override {
    return store_->ScanVolumes(visit);
  }
  Status ScanObjects(ObjectNumber volume,
                     const std::function<bool(const ObjectRecord&)>& visit) override {
    return store_->ScanObjects(volume, visit);
  }
  Status QuarantineObject(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                          const std::function<Status(ObjectNumber)>& remove_data) override {
    return store_->QuarantineObject(number, volume, cookie, remove_data);
  }
  Status Heal() override { return store_->Heal(); }

 private:
  const std::unique_ptr<MetadataStore> store_;
};

}  // namespace cachecore

#endif  // TESTS_CACHECORE_STORE_FORWARDING_STORE_H_
