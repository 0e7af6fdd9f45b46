#include "fetcher/engine/fetch_queue.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>

namespace fetcher {

void FetchQueue::Add(MsgId id, ByteRange range, uint64_t order, uint64_t came) {
  CHECK(!range.empty());
  if (!order_by_id_.emplace(id, order).second) return;  // Delivered twice; it is in line already.
  Read& read = reads_[order];
  read.id = id;
  read.range = range;
  read.came = came;
  read.missing.Add(range);
  order_by_begin_.emplace(range.begin, order);
  longest_ = std::max(longest_, range.size());
  lost_.Remove(range);
  Want(range);
  in_line_.insert(order);
}

std::optional<uint64_t> FetchQueue::NextOrder() const {
  if (wanted_.empty()) return std::nullopt;
  for (const uint64_t order : in_line_) {
    if (!wanted_.Within(reads_.at(order).range).empty()) return order;
  }
  LOG(FATAL) << "bytes are wanted by no READ";
}

uint64_t FetchQueue::NextBegin() const {
  return wanted_.Within(reads_.at(NextOrder().value()).range).front().begin;
}

std::pair<MsgId, ByteRange> FetchQueue::NextRead() const {
  const Read& read = reads_.at(NextOrder().value());
  return {read.id, read.range};
}

void FetchQueue::Want(ByteRange range) {
  for (const ByteRange gap : in_flight_.Gaps(range)) {
    for (const ByteRange part : lost_.Gaps(gap)) wanted_.Add(part);
  }
}

void FetchQueue::Lose(ByteRange range) {
  in_flight_.Remove(range);
  lost_.Add(range);
}

std::vector<MsgId> FetchQueue::Hopeless() {
  std::vector<MsgId> ids;
  if (lost_.empty()) return ids;
  if (reads_.empty()) lost_ = RangeSet();
  for (const auto& [order, read] : reads_) {
    const std::vector<ByteRange> missing = read.missing.Within(read.range);
    const auto lost = [&](ByteRange part) { return lost_.Gaps(part).empty(); };
    if (std::all_of(missing.begin(), missing.end(), lost)) ids.push_back(read.id);
  }
  return ids;
}

ByteRange FetchQueue::Take(uint64_t max_bytes, uint32_t connections) {
  const std::optional<uint64_t> order = NextOrder();
  CHECK(order.has_value());
  in_line_.erase(in_line_.begin(), in_line_.find(*order));  // Theirs is all in flight.
  const uint64_t begin = wanted_.Within(reads_.at(*order).range).front().begin;
  ByteRange piece = wanted_.Within({begin, begin + max_bytes}).front();
  if (connections > 1) {
    // Of what is in flight too: else the first connection that is free takes for itself what those
    // that are free a moment later could share.
    uint64_t part = (wanted_.byte_count() + in_flight_.byte_count()) / connections;
    part = std::max(kMinSplit, (part + kMinSplit - 1) / kMinSplit * kMinSplit);
    // A last part that would be a stump goes with the one before it.
    if (piece.size() >= part + kMinSplit) piece.end = piece.begin + part;
  }
  // A cut inside a block would leave a block that no single piece declares whole.
  const bool cut = piece.end < wanted_.Within({begin, UINT64_MAX}).front().end;
  if (cut && piece.size() > kBlock) piece.end -= piece.end % kBlock;
  wanted_.Remove(piece);
  in_flight_.Add(piece);
  return piece;
}

std::vector<FetchQueue::Reads::iterator> FetchQueue::Overlapping(ByteRange range) {
  std::vector<uint64_t> orders;
  const uint64_t low = range.begin > longest_ ? range.begin - longest_ : 0;
  for (auto it = order_by_begin_.lower_bound(low);
       it != order_by_begin_.end() && it->first < range.end; ++it) {
    orders.push_back(it->second);
  }
  std::sort(orders.begin(), orders.end());
  std::vector<Reads::iterator> found;
  for (const uint64_t order : orders) {
    auto read = reads_.find(order);
    if (read->second.range.Overlaps(range)) found.push_back(read);
  }
  return found;
}

std::vector<MsgId> FetchQueue::Arrived(ByteRange range) {
  in_flight_.Remove(range);
  std::vector<MsgId> finished;
  for (auto read : Overlapping(range)) {
    read->second.missing.Remove(range);
    if (!read->second.missing.empty()) continue;
    finished.push_back(read->second.id);
    Forget(read);
  }
  return finished;
}

void FetchQueue::Return(ByteRange range) {
  in_flight_.Remove(range);
  for (auto read : Overlapping(range)) {
    const std::vector<ByteRange> missing = read->second.missing.Within(range);
    if (missing.empty()) continue;
    for (const ByteRange part : missing) wanted_.Add(part);
    in_line_.insert(read->first);
  }
}

void FetchQueue::Remove(MsgId id) {
  auto known = order_by_id_.find(id);
  if (known == order_by_id_.end()) return;
  auto read = reads_.find(known->second);
  const ByteRange range = read->second.range;
  Forget(read);
  wanted_.Remove(range);
  for (auto other : Overlapping(range)) {
    for (const ByteRange part : other->second.missing.Within(range)) {
      Want(part);
    }
    in_line_.insert(other->first);
  }
}

void FetchQueue::Forget(Reads::iterator read) {
  auto [it, end] = order_by_begin_.equal_range(read->second.range.begin);
  while (it != end && it->second != read->first) ++it;
  CHECK(it != end);
  order_by_begin_.erase(it);
  order_by_id_.erase(read->second.id);
  in_line_.erase(read->first);
  reads_.erase(read);
}

std::vector<MsgId> FetchQueue::Missing(ByteRange range) {
  std::vector<MsgId> ids;
  for (auto read : Overlapping(range)) {
    if (!read->second.missing.Within(range).empty()) ids.push_back(read->second.id);
  }
  return ids;
}

std::vector<MsgId> FetchQueue::Waiting() const {
  return WaitingThrough(std::numeric_limits<uint64_t>::max());
}

std::vector<MsgId> FetchQueue::WaitingThrough(uint64_t came) const {
  std::vector<MsgId> ids;
  for (const uint64_t order : in_line_) {
    const Read& read = reads_.at(order);
    if (read.came <= came && !wanted_.Within(read.range).empty()) ids.push_back(read.id);
  }
  return ids;
}

}  // namespace fetcher
