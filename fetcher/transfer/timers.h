// Timers: when which object wants to be woken; one time for each, the soonest that was asked for.
//
// Threads  thread-compatible.
// Cost     a node for each object that is to be woken, however often that is asked for.

#ifndef FETCHER_TRANSFER_TIMERS_H_
#define FETCHER_TRANSFER_TIMERS_H_

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "cachecore/base/clock.h"
#include "cachecore/values/ids.h"

namespace fetcher {

using cachecore::Duration;
using cachecore::ObjectId;

class Timers {
 public:
  void WakeAt(ObjectId id, Duration at) {
    const auto [entry, is_first] = by_id_.try_emplace(id, at);
    if (!is_first && entry->second <= at) return;
    by_time_.erase({entry->second, id});
    entry->second = at;
    by_time_.emplace(at, id);
  }
  void Remove(ObjectId id) {
    const auto entry = by_id_.find(id);
    if (entry == by_id_.end()) return;
    by_time_.erase({entry->second, id});
    by_id_.erase(entry);
  }
  // One that is due, which is not woken again unless it asks.
  std::optional<ObjectId> TakeDue(Duration now) {
    if (by_time_.empty() || by_time_.begin()->first > now) return std::nullopt;
    const ObjectId id = by_time_.begin()->second;
    Remove(id);
    return id;
  }
  std::optional<Duration> Next() const {
    if (by_time_.empty()) return std::nullopt;
    return by_time_.begin()->first;
  }
  void Clear() {
    by_id_.clear();
    by_time_.clear();
  }
  size_t size() const { return by_time_.size(); }

 private:
  std::map<ObjectId, Duration> by_id_;
  std::set<std::pair<Duration, ObjectId>> by_time_;
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_TIMERS_H_
