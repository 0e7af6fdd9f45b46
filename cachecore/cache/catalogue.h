// Catalogue: volumes and objects by name and number; it brings objects into memory and drops them.
//
// Model    an object is in memory (GuardedEngine), or on disk alone (metadata store and data file),
//          or unknown.  EnsureLoaded brings it from disk into memory; the idle ones that were not
//          used for longest leave memory again.
// Errors   Status of the store and the data file.  A damaged record is quarantined, a lost data
//          file is replaced by an empty one; the object is fetched again after both.  On a disk
//          that takes no writes the object is loaded without a file, which its OPEN makes.
// Threads  thread-safe.  `load_mu` is held over disk I/O and makes objects load one at a time; a
//          caller that finds by name and then makes an object holds it over both.
// Owns     the keys of volumes in memory.  The other parts that it is given outlive it.
// Crash    an object is dropped in the order data file, record: a record without its file is
//          forgotten when it is met.

#ifndef CACHECORE_CACHE_CATALOGUE_H_
#define CACHECORE_CACHE_CATALOGUE_H_

#include <cstddef>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/cache/object_info.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/values/ids.h"
#include "cachecore/verity/tree_cache.h"

namespace cachecore {

class Catalogue {
 public:
  // `max_objects`: so many are in memory, each with a descriptor, before idle ones leave it.
  Catalogue(size_t max_objects, MetadataStore* store, const DataStore& data, TreeCache* trees,
            IdReserve* ids, GuardedEngine* core);

  // Before anything is loaded.
  Status CheckDataIsThere();

  Result<ObjectNumber> AddVolume(const std::string& key) EXCLUDES(core_->mu, load_mu);
  Result<std::optional<VolumeRecord>> FindVolume(const std::string& key) EXCLUDES(core_->mu);
  Result<std::optional<VolumeRecord>> LoadVolume(ObjectNumber number) EXCLUDES(core_->mu);

  // Loads the object; ESTALE when nothing is known of it.  The object may be evicted at once: call
  // it again then.
  Status EnsureLoaded(ObjectNumber number) EXCLUDES(core_->mu, load_mu);
  // The same, for what is no use of it.
  Status LoadUnused(ObjectNumber number) EXCLUDES(core_->mu, load_mu);
  // What is known of an object, which is loaded if need be; ESTALE when nothing is.
  Result<ObjectInfo> Stat(ObjectNumber number) EXCLUDES(core_->mu, load_mu);
  // Before one more object comes into memory, or when some have become idle.
  void MakeRoom() EXCLUDES(core_->mu) { MakeRoomFor(max_objects_); }
  // Of `limit` and more objects in memory the idle ones that were not used for longest leave it.
  void MakeRoomFor(size_t limit) EXCLUDES(core_->mu);
  // The number of a known object, which it loads.
  Result<std::optional<ObjectNumber>> FindByName(const VolumeRecord& volume,
                                                 const std::string& cookie) REQUIRES(load_mu)
      EXCLUDES(core_->mu);
  // Drops an object with its data; the next acquisition of its name fetches it again.
  Status DropObject(ObjectNumber number, const std::string& why) REQUIRES(load_mu)
      EXCLUDES(core_->mu);
  // Makes the empty file of an object that was loaded without one, since the disk took no writes.
  Status MakeLostFile(ObjectNumber number) EXCLUDES(core_->mu, load_mu);
  // Removes a data file that is no object's.  EBUSY: it is one's.
  Status RemoveStray(ObjectNumber number) EXCLUDES(core_->mu, load_mu);
  // Its data file and its records.
  Status EraseObject(const ObjectRecord& record) REQUIRES(load_mu) EXCLUDES(core_->mu);

  Mutex load_mu;  // Before the engine's.

 private:
  void LoadUses(Object* object) EXCLUDES(core_->mu);
  // False: it is not in memory.
  bool NoteUse(ObjectNumber number) REQUIRES(core_->mu);
  Result<UniqueFd> MakeEmptyFile(ObjectNumber number, uint64_t size_bytes);
  Status LoadLocked(ObjectNumber number) REQUIRES(load_mu) EXCLUDES(core_->mu);
  Status Quarantine(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                    const Status& damage);

  const size_t max_objects_;
  MetadataStore* const store_;
  const DataStore& data_;
  TreeCache* const trees_;
  IdReserve* const ids_;
  GuardedEngine* const core_;
  std::unordered_map<std::string, ObjectNumber> volume_numbers_ GUARDED_BY(core_->mu);
  std::unordered_map<ObjectNumber, std::string> volume_keys_ GUARDED_BY(core_->mu);
  std::unordered_set<ObjectNumber> dropped_ GUARDED_BY(load_mu);  // Still on disk.
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_CATALOGUE_H_
