// Culler: takes bytes out of the data files, so that others have room.
//
// Model    an object is a row of parts (PartUses), in memory or on disk; what is allocated without
//          being present is culled first.  Cull makes a range absent, in memory and in the records,
//          and then punches a hole.  With the last present bytes of an object its Merkle tree goes.
// Units    bytes from the start of the object; ages as durations.
// Errors   EBUSY: a read waits for the range, or it is being fetched.  ETIMEDOUT: a reply is being
//          sent from the object, for longer than Cull waits.  ESTALE: nothing is known of the
//          object.  The store's own error, EROFS where it takes no writes.  Nothing has changed
//          after these.
// Threads  thread-safe: what changes a data file is done one at a time.
// Owns     nothing; the parts that it is given outlive it.
// Cost     FindParts: a look at each data file, and at the records of each object that is on disk
//          alone.  Cull: a synced write to the store and a hole, for any length of range.
// Crash    memory, then the removal of the presence records, durably, then the hole: no record is
//          ever of bytes that are in a hole.  After a death in between the range is fetched again.
// See      docs/design.md "Culling".

#ifndef CACHECORE_CACHE_CULLER_H_
#define CACHECORE_CACHE_CULLER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/device_port.h"
#include "cachecore/cache/durability.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/policy/choices.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/values/ids.h"

namespace cachecore {

struct CullPart {
  ObjectNumber object;
  ByteRange range;
  uint64_t bytes = 0;  // Of it in the data file.
  bool is_mounted = false;
  Duration age{0};  // Since its last use.
};

// What an object costs, and whether it was worth it.
struct ObjectUse {
  uint64_t allocated = 0;  // Of its data file, in bytes of the disk.
  uint64_t used = 0;       // When bytes of it were last read or filled; seconds since 1970.
};

class Culler {
 public:
  // Whether a mount shows the object of this volume and cookie.
  using IsMounted = std::function<bool(const std::string&, const std::string&)>;

  struct Parts {
    MetadataStore* store;
    const DataStore& data;
    Choices* choices;
    IdReserve* ids;
    GuardedEngine* core;
    Catalogue* catalogue;
    Durability* durability;
    DevicePort* device;
  };
  Culler(const Clock& clock, const Parts& parts);

  // What is in the data files and not pinned, in the order in which it is to be culled: what no
  // mount shows first, and of that what was used least recently.  `allocated`: of all the data
  // files, in bytes; `pinned`: of those of pinned objects.
  Result<std::vector<CullPart>> FindParts(const IsMounted& is_mounted, uint64_t* allocated,
                                          uint64_t* pinned) EXCLUDES(core_->mu);
  // Takes the range out.  EBUSY also when the object is pinned.
  Status Cull(ObjectNumber number, ByteRange range) EXCLUDES(cull_mu_, catalogue_->load_mu);
  // Takes out all of the object's bytes but those that Cull refuses.
  Status CullObject(ObjectNumber number) EXCLUDES(cull_mu_, catalogue_->load_mu);
  // Takes the whole object out, with its record: for a store that takes no writes, where Cull
  // fails.  EBUSY: a mount shows it, or it is pinned, or was used a moment ago.
  Status DropUnused(ObjectNumber number, const IsMounted& is_mounted)
      EXCLUDES(cull_mu_, catalogue_->load_mu);
  // The same at an operator's wish: with its pin, and also when it was used a moment ago.
  Status Drop(ObjectNumber number, const IsMounted& is_mounted)
      EXCLUDES(cull_mu_, catalogue_->load_mu);
  // Removes a data file of which Cull has said ESTALE.
  Status RemoveStray(ObjectNumber number) EXCLUDES(cull_mu_, catalogue_->load_mu);
  // From now on the object of this name is pinned, or is not.
  Status SetPinned(const std::string& volume, const std::string& cookie, bool pinned)
      EXCLUDES(cull_mu_);
  ObjectUse UseOf(ObjectNumber number) EXCLUDES(core_->mu);
  // Keeps on disk when the parts of the objects in memory were last used, for the next daemon.
  void KeepUses() EXCLUDES(core_->mu);

 private:
  // What is known of a data file's object, in memory or on disk.
  struct Known {
    const DataFile& file;
    uint64_t size_bytes;
    const PresenceMap& presence;
    const PartUses& uses;
    uint64_t tree_bytes;
    bool is_mounted;
    bool is_asked_for;  // A request may bring some of its bytes.
  };
  struct Begun {
    Culling culling;
    ByteRange hole;  // To be made.
  };

  // False: it is not in memory.  *has_more: bytes that are not present are allocated.
  bool FindLoaded(const DataFile& file, const IsMounted& is_mounted, std::vector<CullPart>* parts,
                  bool* has_more, uint64_t* pinned) EXCLUDES(core_->mu);
  void FindOnDisk(const DataFile& file, const IsMounted& is_mounted, std::vector<CullPart>* parts,
                  bool* has_more, uint64_t* pinned) EXCLUDES(core_->mu);
  // Whether more is allocated than what is present.
  bool AddParts(const Known& known, std::vector<CullPart>* parts) const;
  void AddLeftOver(const DataFile& file, std::vector<CullPart>* parts) EXCLUDES(core_->mu);
  Result<Begun> Begin(ObjectNumber number, ByteRange range)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  void Cancel(ObjectNumber number) EXCLUDES(core_->mu);

  const Clock& clock_;
  MetadataStore* const store_;
  const DataStore& data_;
  Choices* const choices_;
  IdReserve* const ids_;
  GuardedEngine* const core_;
  Catalogue* const catalogue_;
  Durability* const durability_;
  DevicePort* const device_;
  Mutex cull_mu_;  // Held over the change of a data file.
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_CULLER_H_
