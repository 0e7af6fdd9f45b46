// FetchQueue: which bytes of one object to fetch next, and which READs they finish.
//
// Model    each READ misses bytes; each missing byte is wanted (no transfer fetches it), in flight,
//          or lost (inside a piece that Take gave out).  Pieces never overlap.  Take serves READs
//          in the order in which they came: a piece begins at the oldest READ's first wanted byte
//          and goes on over what is wanted next to it, of any READ.  READs may overlap (one that
//          was withdrawn and came again); a byte is fetched once for all of them.
// Errors   none: pure bookkeeping.
// Threads  thread-compatible.
// Cost     O(log n) plus the READs and ranges that a call touches.

#ifndef FETCHER_ENGINE_FETCH_QUEUE_H_
#define FETCHER_ENGINE_FETCH_QUEUE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cachecore/values/ids.h"
#include "fetcher/transfer/range_set.h"

namespace fetcher {

using cachecore::MsgId;

class FetchQueue {
 public:
  // Sharing what is wanted among several connections makes no part smaller than this, and aligns it
  // so.
  static constexpr uint64_t kMinSplit = 1 << 20;
  // The daemon counts whole blocks only, so pieces are cut at them.
  static constexpr uint64_t kBlock = 4096;

  // `order` is the place in line, over all objects; `came` is less for a READ that later ones may
  // overtake, and grows from READ to READ.  REQUIRES: `range` is not empty.
  void Add(MsgId id, ByteRange range, uint64_t order, uint64_t came);
  // The place in line of the oldest READ with wanted bytes; nullopt when all is in flight.
  std::optional<uint64_t> NextOrder() const;
  // When that READ came.  REQUIRES: NextOrder().
  uint64_t NextCame() const { return reads_.at(NextOrder().value()).came; }
  // Where the next piece would begin.  REQUIRES: NextOrder().
  uint64_t NextBegin() const;
  // The READ at the head of the line, whole.  REQUIRES: NextOrder().
  std::pair<MsgId, ByteRange> NextRead() const;
  bool Has(MsgId id) const { return order_by_id_.count(id) > 0; }
  // The next piece, at most `max_bytes`, and no more than one of `connections`, busy ones included,
  // has to bring if all that is wanted is shared among them.  REQUIRES: NextOrder().
  ByteRange Take(uint64_t max_bytes, uint32_t connections);
  // Bytes in flight have arrived.  Returns the READs that now miss nothing; they are forgotten.
  std::vector<MsgId> Arrived(ByteRange range);
  // Of those that came up to then, the READs with wanted bytes.
  std::vector<MsgId> WaitingThrough(uint64_t came) const;
  // Bytes in flight will not come: what READs still miss of them is wanted again.
  void Return(ByteRange range);
  // Bytes in flight will never come: they are not wanted until a later READ misses them.
  void Lose(ByteRange range);
  // The READs that miss nothing but what is lost.
  std::vector<MsgId> Hopeless();
  // Removes a READ.  What no other READ misses is no longer wanted.
  void Remove(MsgId id);

  // The READs that miss bytes of `range`; those with wanted bytes, which no transfer fetches now.
  std::vector<MsgId> Missing(ByteRange range);
  std::vector<MsgId> Waiting() const;
  bool empty() const { return reads_.empty(); }

 private:
  struct Read {
    MsgId id;
    ByteRange range;
    uint64_t came;
    RangeSet missing;
  };
  using Reads = std::map<uint64_t, Read>;  // By order.

  // The READs whose range overlaps `range`, by order.
  std::vector<Reads::iterator> Overlapping(ByteRange range);
  void Forget(Reads::iterator read);
  // Makes wanted what READs miss of `range` and is not in flight and not lost.
  void Want(ByteRange range);

  Reads reads_;
  std::unordered_map<MsgId, uint64_t> order_by_id_;
  std::multimap<uint64_t, uint64_t> order_by_begin_;
  uint64_t longest_ = 0;        // No READ ever was longer: bounds the search by first byte.
  std::set<uint64_t> in_line_;  // Orders of the READs that may have wanted bytes.
  RangeSet wanted_;
  RangeSet in_flight_;
  RangeSet lost_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_FETCH_QUEUE_H_
