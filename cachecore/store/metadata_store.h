// MetadataStore: everything that must outlive the daemon, as records.
//
// Model    volumes and objects by number and by key; per object its presence, in two classes; the
//          journal of pending requests; counters that only grow.
// Errors   an object's record or presence that does not decode is EBADMSG from the call that read
//          it: the caller quarantines the object and goes on.  Damaged volumes, requests and
//          counters are repaired or left out by the store itself, and logged.  Any other error is
//          the store's own (EIO, ENOSPC).
// Threads  thread-safe; every call may block on disk.  Never called with an engine lock held.
// Crash    Commit returns after the write has reached the kernel, so it survives SIGKILL of any
//          process; only Sync::kYes survives a power cut.  A batch is all or nothing.
// See      docs/format.md; docs/design.md "Durability".

#ifndef CACHECORE_STORE_METADATA_STORE_H_
#define CACHECORE_STORE_METADATA_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "cachecore/values/ids.h"
#include "cachecore/values/object_facts.h"
#include "cachecore/values/presence_map.h"
#include "cachecore/values/use_record.h"
#include "cachecore/verity/verity_tree.h"

namespace cachecore {

struct VolumeRecord {
  ObjectNumber number;
  std::string key;
};

struct ObjectRecord {
  ObjectNumber number;
  ObjectNumber volume;
  std::string cookie;
  uint64_t size_bytes = 0;
  bool stale = false;  // The origin was seen to change; the next fresh use replaces the object.
  std::string attr;    // The fetcher's own, opaque: which validators it pinned at which origin.
  std::optional<Digest> verity = std::nullopt;  // What its bytes are checked against.
  std::optional<ObjectFacts> facts = std::nullopt;
};

struct JournalRecord {
  MsgId msg_id;
  uint32_t opcode = 0;  // wire::Opcode.
  ObjectNumber object;
  ByteRange range;
  Generation generation;
};

// What an operator has chosen; cachecore/policy/choices.h says what the names and values are.
struct Choice {
  std::string name;
  std::string value;
  friend auto operator<=>(const Choice&, const Choice&) = default;
};

enum class Presence : uint8_t {
  kThisBoot,  // In the page cache at least: trusted until the machine restarts.
  kDurable,   // On disk: trusted for ever.
};

enum class Counter : uint8_t { kObjectNumber, kMsgId, kObjectId, kGeneration };

enum class Sync : bool { kNo, kYes };

// Changes to be committed together.  Whatever their order here, they are applied as: erase objects,
// put volumes and objects, remove presence, add presence, put and then erase journal records.  So
// one batch can replace an object by another of the same cookie.
struct MetadataBatch {
  struct PresenceChange {
    ObjectNumber object;
    ByteRange range;  // Whole blocks; the end may be the object's.
    Presence presence;
  };
  std::vector<VolumeRecord> put_volumes;
  std::vector<ObjectRecord> put_objects;
  // With their presence; number, volume, cookie count.  A cookie that by now names another object
  // goes on naming it.
  std::vector<ObjectRecord> erase_objects;
  std::vector<PresenceChange> add_presence;
  // Of both kinds, whatever is said there.  What is added at the same time may be lost with it.
  std::vector<PresenceChange> remove_presence;
  // Those of objects without a record, or with one that cannot be read, are left out.
  std::vector<UseRecord> put_uses;
  std::vector<JournalRecord> put_journal;
  std::vector<MsgId> erase_journal;
  std::vector<Choice> put_choices;
  std::vector<std::string> erase_choices;  // By name.

  bool empty() const {
    return put_volumes.empty() && put_objects.empty() && erase_objects.empty() &&
           add_presence.empty() && remove_presence.empty() && put_uses.empty() &&
           put_journal.empty() && erase_journal.empty() && !HasChoices();
  }
  bool HasChoices() const { return !put_choices.empty() || !erase_choices.empty(); }
};

class MetadataStore {
 public:
  virtual ~MetadataStore() = default;

  // Takes the next `count` values of a counter for this process; returns the first.  Values never
  // recur in a boot: what a dead process took and did not use is skipped.  After a power cut those
  // recur that no surviving record uses.  On a disk that takes no writes, object numbers are
  // refused, and the others leave a gap.
  virtual Result<uint64_t> Reserve(Counter counter, uint64_t count) = 0;

  // EROFS, and nothing has changed: presence was to be removed, or a choice to be kept, with a
  // sync, and the disk takes no writes, so that the next process would find what was before.
  virtual Status Commit(const MetadataBatch& batch, Sync sync) = 0;

  // Point look-ups; nullopt when there is no such record.
  virtual Result<std::optional<VolumeRecord>> FindVolume(const std::string& key) = 0;
  virtual Result<std::optional<VolumeRecord>> LoadVolume(ObjectNumber number) = 0;
  virtual Result<std::optional<ObjectNumber>> FindObject(ObjectNumber volume,
                                                         const std::string& cookie) = 0;
  virtual Result<std::optional<ObjectRecord>> LoadObject(ObjectNumber number) = 0;

  // What may be trusted now: durable presence, and presence of this boot.
  virtual Result<PresenceMap> LoadPresence(ObjectNumber object, uint64_t size_bytes) = 0;
  // Only what is durable.
  virtual Result<PresenceMap> LoadDurablePresence(ObjectNumber object, uint64_t size_bytes) = 0;

  // When the object's parts were used, as far as that is known.  What cannot be read or does not
  // decode is left out: it is advice, and no reason not to serve the object.
  virtual std::vector<UseRecord> LoadUses(ObjectNumber object) = 0;

  // Objects with presence of this boot that is not durable, in order of number.  Looks at all
  // presence of this boot: for the background.  What does not decode is left out.
  virtual Result<std::vector<ObjectNumber>> FindUndurable() = 0;

  // In order of name.  One that does not decode has an empty value.
  virtual Result<std::vector<Choice>> LoadChoices() = 0;

  // In order of msg_id.  Records that do not decode are quarantined and left out.
  virtual Result<std::vector<JournalRecord>> LoadJournal() = 0;

  // Scans, in order of number; for listings, not for the start.  Records that do not decode are
  // left out.  `visit` returns false to stop.
  virtual Status ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit) = 0;
  virtual Status ScanObjects(ObjectNumber volume,
                             const std::function<bool(const ObjectRecord&)>& visit) = 0;

  // Takes every record of a damaged object (its own, its key, its presence) out of the way, keeping
  // the damaged bytes under a quarantine key that `holdfast dump` shows.  What the caller cannot
  // know is found by a scan: number 0 is whatever object has this volume and cookie, volume 0
  // whatever index record names this number.  Calls `remove_data` for each number before its
  // records go: after a death in between they are met again, and a file without them would not be.
  virtual Status QuarantineObject(ObjectNumber number, ObjectNumber volume,
                                  const std::string& cookie,
                                  const std::function<Status(ObjectNumber)>& remove_data) = 0;

  // Tries to write to the disk again where it has taken no writes; says why it still does not.
  virtual Status Heal() { return Status(); }
};

}  // namespace cachecore

#endif  // CACHECORE_STORE_METADATA_STORE_H_
