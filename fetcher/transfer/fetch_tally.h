// FetchTally: what the fetcher has counted and not told the daemon yet.
//
// Model    the event loop's parts add to it, and the loop takes from it before it sends its
//          commands.  What is counted while no daemon is there waits for the next one.
// Threads  the event loop's.
// Cost     bounded: a number for each host and status, and for each cause of a retry.
// Crash    what was not taken is lost.
// See      docs/protocol.md, "count".

#ifndef FETCHER_TRANSFER_FETCH_TALLY_H_
#define FETCHER_TRANSFER_FETCH_TALLY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/protocol/wire.h"

namespace fetcher {

class FetchTally {
 public:
  // A request to an HTTP origin has ended: `code` is the status of the answer, or 0 without one.
  void Answer(const std::string& host, int code) {
    Add({"requests", 1, {host, code == 0 ? "none" : std::to_string(code)}});
  }
  // Bytes of an object have come from an HTTP origin.
  void Bytes(const std::string& host, uint64_t bytes) { Add({"bytes", bytes, {host}}); }
  // What has failed is going to be tried again.
  void Retry(const std::string& cause) { Add({"retries", 1, {cause}}); }

  std::vector<cachecore::wire::CountCommand> Take() {
    std::vector<cachecore::wire::CountCommand> taken;
    for (auto& [key, count] : std::exchange(counts_, {})) taken.push_back(std::move(count));
    return taken;
  }

 private:
  // More are dropped: an origin that redirects to ever new hosts must not fill the memory.
  static constexpr size_t kMax = 4096;

  void Add(cachecore::wire::CountCommand more) {
    const auto key = std::make_pair(more.name, more.labels);
    const auto known = counts_.find(key);
    if (known != counts_.end()) {
      known->second.more += more.more;
    } else if (counts_.size() < kMax) {
      counts_.emplace(key, std::move(more));
    }
  }

  std::map<std::pair<std::string, std::vector<std::string>>, cachecore::wire::CountCommand> counts_;
};

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_FETCH_TALLY_H_
