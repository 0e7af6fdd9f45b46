// Object: one cached file of a volume, and PendingRead: one read that waits on it.
//
// Model    an object is named for ever by its number.  Its size is known once a fetcher has opened
//          it. `in_flight` holds its READ requests by first byte, never overlapping; `waiting`
//          holds its unfinished reads by their first missing byte.  Plain data: Engine keeps the
//          invariants.
// Threads  guarded by GuardedEngine::mu; `file` may be read from by any holder of the shared
//          pointer.
// Owns     the data file's descriptor, shared with replies in flight.
// Crash    number, keys, size, stale, attr and presence are in the metadata store; the rest is
//          memory.

#ifndef CACHECORE_ENGINE_OBJECT_H_
#define CACHECORE_ENGINE_OBJECT_H_

#include <sys/types.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/engine/object_state.h"
#include "cachecore/engine/part_uses.h"
#include "cachecore/engine/read_ahead.h"
#include "cachecore/engine/read_history.h"
#include "cachecore/values/ids.h"
#include "cachecore/values/object_facts.h"
#include "cachecore/values/presence_map.h"
#include "cachecore/verity/verity_tree.h"

namespace cachecore {

// Bytes of an object that its data file could not take, in a sealed memfd at the same offset.
struct ThroughPart {
  ByteRange range;
  std::shared_ptr<const UniqueFd> file;
};

struct ObjectVerity;

// Where a finished read's bytes are.
struct ReadBytes {
  std::shared_ptr<const UniqueFd> file;
  std::shared_ptr<const ObjectVerity> verity;
  std::vector<ThroughPart> through;  // What is not in `file`.
};
using ReadDone = std::function<void(const Status&, const ReadBytes&)>;
using AcquireDone = std::function<void(const Status&)>;

struct Object;

// What is needed to check an object's bytes.
struct ObjectVerity {
  ObjectNumber number;
  std::string name;  // For people.
  Digest digest;
  VerityLayout layout;
};

struct PendingRead {
  Object* object = nullptr;  // Valid until `ended`.
  ByteRange range;
  uint64_t position = 0;  // First missing byte: its key in object->waiting.
  Duration started{0};
  Reader reader;
  std::string why;                   // The last cause of a request that has ended.
  std::vector<MsgId> requests;       // READs it holds a share in; some may have ended.
  std::vector<ThroughPart> through;  // What has come for it alone.
  ReadDone done;
  std::optional<std::multimap<Duration, std::weak_ptr<PendingRead>>::iterator> deadline;
  bool ended = false;
};
using ReadTicket = std::shared_ptr<PendingRead>;

// A read whose deadline has passed.  When read-ahead of a page has failed, the kernel reads that
// page again at once, alone.  That second read gets the same error at once; otherwise the reader
// would wait twice.
struct ExpiredRead {
  ByteRange range;
  Duration echo_until{0};
  Status status;
};

struct PendingAcquire {
  uint64_t serial = 0;
  Duration deadline{0};  // Zero is never.
  AcquireDone done;
};

// A range on its way out of the data file; see Engine::BeginCull.
struct Culling {
  ByteRange range;
  std::vector<ByteRange> present;    // Of it, before.
  std::vector<ByteRange> undurable;  // Of that.
};

struct Object {
  ObjectNumber number;
  ObjectNumber volume;
  std::string volume_key;
  std::string cookie_key;

  bool size_known = false;
  uint64_t size_bytes = 0;
  std::string attr;
  std::optional<Digest> digest;                // Never another one, once it is set.
  std::shared_ptr<const ObjectVerity> verity;  // Null while size or digest is not known.
  bool stale = false;  // The origin's copy has changed; see docs/semantics.md.
  std::optional<ObjectFacts> facts;
  // It takes that object's place, whose attr it has, if its OPEN finds another version.
  std::optional<ObjectNumber> succeeds;
  bool may_replace = false;  // Else the other one is marked stale.
  std::string last_error;    // Why it was last refused or failed; for people.
  bool unreadable = false;   // Its disk has lost bytes, which has been logged.

  ObjectState state = ObjectState::kClose;
  std::optional<ObjectId> live_id;  // The instance a fetcher has open now.
  std::optional<MsgId> open_request;
  Duration open_held_until{0};  // Not delivered before; see Engine::DeliveryFailed.
  uint32_t refusals = 0;        // Refused reopens in a row.
  bool full = false;            // The live instance cannot write to the data file.

  PresenceMap presence{0};
  std::map<uint64_t, MsgId> in_flight;
  std::multimap<uint64_t, ReadTicket> waiting;
  std::vector<PendingAcquire> acquires;
  std::vector<ExpiredRead> expired;  // Lately; see ExpiredRead.
  ReadAhead read_ahead;
  Duration used{0};  // When it was last read or looked up, to the housekeeper's tick; 0 is never.
  Duration slow_report{0};  // At which age its oldest waiting read is logged next; 0 is the first.

  std::shared_ptr<const UniqueFd> file;
  // What `file` was before culls that have begun, while a reply is being sent from it.
  std::vector<std::weak_ptr<const UniqueFd>> earlier_files;
  std::vector<ByteRange> unsynced;  // Filled since the last fdatasync.
  uint64_t unsynced_bytes = 0;
  // On its way to the disk and not recorded as durable yet; less what was removed meanwhile.
  std::vector<ByteRange> syncing;
  bool record_due = false;  // Its record could not be written, and must be.
  // In this life, for people: blocks that were asked for, and blocks that a cull has taken out.
  PresenceMap was_read{0};
  PresenceMap was_culled{0};
  std::optional<Culling> culling;
  PartUses uses;

  // Whether its file is only its own: no reply is being sent from it.
  bool IsFileUnused() const {
    return file.use_count() <= 1 &&
           std::all_of(earlier_files.begin(), earlier_files.end(),
                       [](const auto& earlier) { return earlier.expired(); });
  }
  // Whether all that is known of it is on disk, so that it can leave memory.
  bool IsIdle() const {
    return IsFileUnused() && waiting.empty() && acquires.empty() && in_flight.empty() &&
           !open_request && unsynced.empty() && syncing.empty() && !record_due && !culling;
  }

  // Marks the blocks that `range` touches.
  void NoteRead(ByteRange range) { Mark(range, &was_read); }
  void NoteCulled(ByteRange range) { Mark(range, &was_culled); }
  void Mark(ByteRange range, PresenceMap* map) const {
    if (map->size_bytes() != size_bytes) *map = PresenceMap(size_bytes);
    const uint64_t end = (range.end + kBlockSize - 1) / kBlockSize * kBlockSize;
    map->Add({range.begin / kBlockSize * kBlockSize, std::min(end, size_bytes)});
  }

  // Makes `verity` once size and digest are known.
  void NoteVerity() {
    if (!size_known || !digest || verity != nullptr) return;
    verity = std::make_shared<const ObjectVerity>(
        ObjectVerity{number, volume_key + "/" + cookie_key, *digest, VerityLayout(size_bytes)});
  }
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_OBJECT_H_
