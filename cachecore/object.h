// Object: one cached file of a volume, and PendingRead: one read that waits on it.
//
// Model    an object is named for ever by its number.  Its size is known once a fetcher has opened
// it.
//          `in_flight` holds its READ requests by first byte, never overlapping; `waiting` holds
//          its unfinished reads by their first missing byte.  Plain data: Engine keeps the
//          invariants.
// Threads  guarded by Cache::mu_; `file` may be read from by any holder of the shared pointer.
// Owns     the data file's descriptor, shared with replies in flight.
// Crash    number, keys, size, stale, attr and presence are in the metadata store; the rest is
// memory.

#ifndef CACHECORE_OBJECT_H_
#define CACHECORE_OBJECT_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/byte_range.h"
#include "cachecore/clock.h"
#include "cachecore/ids.h"
#include "cachecore/object_state.h"
#include "cachecore/presence_map.h"
#include "cachecore/read_ahead.h"
#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cachecore/verity_tree.h"

namespace cachecore {

using ReadDone = std::function<void(const Status&)>;
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
  pid_t caller = 0;             // Of whose read it is; for people.
  std::vector<MsgId> requests;  // READs it holds a share in; some may have ended.
  ReadDone done;
  std::optional<std::multimap<Duration, std::weak_ptr<PendingRead>>::iterator> deadline;
  bool ended = false;
};
using ReadTicket = std::shared_ptr<PendingRead>;

// A read that has waited out its time.  When its read-ahead of a page has failed, the kernel asks
// for that page again at once, alone; that echo is given the same answer, or the reader would wait
// twice.
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
  bool stale = false;      // The origin's copy has changed; see docs/semantics.md.
  std::string last_error;  // Why it was last refused or failed; for people.
  bool unreadable = false;  // Its disk has lost bytes, which has been said.

  ObjectState state = ObjectState::kClose;
  std::optional<ObjectId> live_id;  // The instance a fetcher has open now.
  std::optional<MsgId> open_request;
  Duration open_held_until{0};  // Not delivered before; see Engine::DeliveryFailed.
  uint32_t refusals = 0;  // Refused reopens in a row.

  PresenceMap presence{0};
  std::map<uint64_t, MsgId> in_flight;
  std::multimap<uint64_t, ReadTicket> waiting;
  std::vector<PendingAcquire> acquires;
  std::vector<ExpiredRead> expired;  // Lately; see ExpiredRead.
  ReadAhead read_ahead;
  Duration used{0};         // When it was last read or looked up; to the housekeeper's tick.
  Duration slow_report{0};  // At which age its oldest waiting read is logged next; 0 is the first.

  std::shared_ptr<const UniqueFd> file;
  std::vector<ByteRange> unsynced;  // Filled since the last fdatasync.
  uint64_t unsynced_bytes = 0;
  bool syncing = false;     // Some of it is on its way to the disk.
  bool record_due = false;  // Its record could not be written, and must be.

  // Nothing goes on with it that memory alone knows of.
  bool IsIdle() const {
    return waiting.empty() && acquires.empty() && in_flight.empty() && !open_request &&
           unsynced.empty() && !syncing && !record_due;
  }

  // Makes `verity`, once there is what it takes.
  void NoteVerity() {
    if (!size_known || !digest || verity != nullptr) return;
    verity = std::make_shared<const ObjectVerity>(
        ObjectVerity{number, volume_key + "/" + cookie_key, *digest, VerityLayout(size_bytes)});
  }
};

}  // namespace cachecore

#endif  // CACHECORE_OBJECT_H_
