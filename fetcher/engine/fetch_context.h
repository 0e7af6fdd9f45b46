// FetchContext: what all objects of one connection to the daemon share, and the settings of
// fetching.
//
// Units    durations; bytes.
// Threads  the event loop's.
// Owns     nothing: what it points to outlives it.

#ifndef FETCHER_ENGINE_FETCH_CONTEXT_H_
#define FETCHER_ENGINE_FETCH_CONTEXT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/verity/tree_cache.h"
#include "fetcher/client/client.h"
#include "fetcher/engine/origin_spells.h"
#include "fetcher/transfer/fetch_tally.h"

namespace fetcher {

struct FetchOptions {
  uint64_t max_range = 16 << 20;             // Bytes of one transfer.
  Duration retry_budget = Duration::zero();  // Of a READ; zero is for ever.
  Duration open_retry_budget = Duration::zero();
  Duration retry_first = std::chrono::milliseconds(50);
  Duration retry_cap = std::chrono::seconds(5);
  // An origin has changed when it has said so three times, at least so far apart in all.
  Duration confirm_change = std::chrono::seconds(4);
  // How often the daemon is told the same cause again: its answer shows requests that have been
  // withdrawn meanwhile, which would be kept for as long as the origin is away.
  Duration tell_again = std::chrono::seconds(10);
};

// What all objects of one connection share.
struct FetchContext {
  // Declared bytes after which the declarations are sent without waiting for the loop's turn to
  // end: a fast origin can keep libcurl busy for long, and readers wait for these.
  static constexpr uint64_t kFlushBytes = 1 << 20;

  const FetchOptions& options;
  DeviceClient* client;
  const cachecore::Clock& clock;
  std::mt19937* random;
  cachecore::TreeCache* trees;
  OriginSpells* spells;
  // Asks for OnTimer of this object at that time.
  std::function<void(ObjectId, Duration)> wake_at;
  // Whether the volume's source is another one than the one of this stamp.
  std::function<bool(const std::string& volume, const std::string& stamp)> source_changed;
  FetchTally* tally;
  uint64_t declared_bytes = 0;  // Since the last flush.
  size_t without_room = 0;      // Objects whose data file cannot grow.
  size_t through = 0;           // READs that are being fetched into memory.
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_FETCH_CONTEXT_H_
