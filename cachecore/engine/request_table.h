// RequestTable: the requests that a fetcher has not answered yet.
//
// Model    requests by msg_id.  A request is *published* once its journal record is written, and
//          only then may carry the NEW mark: "to be delivered".  Select walks NEW requests by
//          increasing id from the cursor and wraps once, demand before background.  Ids are given
//          by the caller and never recur.  The caller that Takes a request out completes it.
// Errors   none; adding an id twice is a CHECK.
// Threads  thread-compatible; guarded by GuardedEngine::mu.  No I/O, no callbacks but Select's
//          predicate.
// Cost     O(log n); Select also pays for each NEW request that its predicate passes over.
// Crash    memory only; the journal in the metadata store is what survives.
// See      docs/semantics.md "Requests".

#ifndef CACHECORE_ENGINE_REQUEST_TABLE_H_
#define CACHECORE_ENGINE_REQUEST_TABLE_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/values/ids.h"

namespace cachecore {

struct Request {
  MsgId id;
  wire::Opcode opcode = wire::Opcode::kRead;
  ObjectNumber object;
  ByteRange range;   // READ only.
  ObjectId closing;  // CLOSE only: the instance that is to be closed.
  Duration created{0};

  bool published = false;
  bool background = false;    // No read waits for it: read-ahead, or replayed from the journal.
  bool demanded = false;      // A read has held a share in it.
  uint32_t waiters = 0;       // Reads that hold a share in it.
  uint64_t filled_bytes = 0;  // Of its range, since it was made.
  Generation delivered;       // To which attachment it last went out; 0 for none.
  std::string cause;          // What the fetcher last said about it.
};

class RequestTable {
 public:
  Request* Add(Request request);
  Request* Find(MsgId id);
  // Removes and returns it; null when it is not in the table.
  std::unique_ptr<Request> Take(MsgId id);

  // Sets the NEW mark and allows delivery.  REQUIRES: `id` is in the table.
  void Publish(MsgId id);
  // Sets the NEW mark again on every published request that `wanted` accepts.
  void Restore(const std::function<bool(const Request&)>& wanted);
  // Moves a background request that a reader has joined among the demanded ones.
  void Promote(Request* request);

  bool IsNew(MsgId id) const { return new_demand_.contains(id) || new_background_.contains(id); }
  bool HasNew() const { return !new_demand_.empty() || !new_background_.empty(); }

  bool HasNewLike(const std::function<bool(const Request&)>& wanted) const;

  // The next NEW request that `deliverable` accepts, or null.  `deliverable` may add requests (they
  // are not published yet) and must not remove any.
  Request* Select(const std::function<bool(Request&)>& deliverable);
  // It has gone out: clears the NEW mark and moves the cursor past it.
  void MarkDelivered(Request* request, Generation generation);

  size_t size() const { return requests_.size(); }
  const std::map<MsgId, std::unique_ptr<Request>>& all() const { return requests_; }

 private:
  Request* SelectFrom(const std::set<MsgId>& ids, const std::function<bool(Request&)>& deliverable);

  std::map<MsgId, std::unique_ptr<Request>> requests_;
  std::set<MsgId> new_demand_;  // Invariant: both are subsets of requests_' keys.
  std::set<MsgId> new_background_;
  MsgId cursor_;
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_REQUEST_TABLE_H_
