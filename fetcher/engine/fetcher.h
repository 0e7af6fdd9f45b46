// Fetcher: holdfast-fetcherd without its flags: attaches, serves, and attaches again until it is
// stopped.
//
// Model    one event loop waits for the device, the network and local files.  When the connection
//          to the daemon ends, everything under way is dropped and a new attachment starts from
//          nothing: the daemon delivers again what is pending.
// Errors   Run: EPERM and EPROTONOSUPPORT from the daemon end it; anything else is tried again for
//          ever.
// Threads  thread-compatible; Run is the only thread.
// Owns     the engines, the connection, all open objects.
// Crash    keeps nothing: what a successor must know is in the objects' attr.

#ifndef FETCHER_ENGINE_FETCHER_H_
#define FETCHER_ENGINE_FETCHER_H_

#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_map>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/environment/secret_environment.h"
#include "fetcher/client/client.h"
#include "fetcher/engine/object_fetcher.h"
#include "fetcher/origins/file_backend.h"
#include "fetcher/origins/http_backend.h"
#include "fetcher/origins/source_table.h"
#include "fetcher/source/local_files.h"
#include "fetcher/transfer/timers.h"

namespace fetcher {

struct FetcherOptions {
  std::string device;                       // The daemon's socket.
  std::string sources_dir;                  // VOLUME.json files.
  std::shared_ptr<const LocalFiles> files;  // Null: opened with the process's own rights.
  uint32_t connections = 16;                // At most, per origin.
  uint32_t credits = 256;
  FetchOptions fetch;
  HttpOptions http;
  std::shared_ptr<const cachecore::SecretEnvironment> environment =
      std::make_shared<cachecore::SecretEnvironment>();
};

// What the Fetcher calls in the program that runs it.
struct FetcherHooks {
  // Attached, by this connection: a new one, or the one that was kept.
  std::function<void(int connection, bool is_new)> attached = [](int, bool) {};
  // The loop turns, attached or not: about every `alive_interval`, if that is not zero.
  std::function<void()> alive = [] {};
  Duration alive_interval{0};
};

class Fetcher : private DeviceHandler {
 public:
  // `clock` outlives this.
  Fetcher(FetcherOptions options, const cachecore::Clock& clock, FetcherHooks hooks);
  ~Fetcher() override;

  // Serves until `stop_fd` is readable.  `kept`: the connection that an earlier fetcher left, or
  // none.
  Status Run(int stop_fd, UniqueFd kept = UniqueFd());

 private:
  static constexpr int kFilePiecesPerTurn = 4;
  static constexpr size_t kCheckedTreeBlocks = 4096;  // In memory: 16 MiB, for 2 GiB of data.

  void OnOpen(OpenRequest open) override;
  void OnRead(MsgId msg_id, ObjectId object_id, ByteRange range) override;
  void OnReadAhead(MsgId msg_id, ObjectId object_id, ByteRange range) override;
  void OnClose(ObjectId object_id) override;
  void OnRejected(const cachecore::wire::Command& command, int error) override;

  void AddRead(MsgId msg_id, ObjectId object_id, ByteRange range, uint64_t order, uint64_t came);
  // The last place in line.  Even: the odd ones are read-ahead's.
  uint64_t TakeOrder() { return next_order_ += 2; }

  // A connection: the kept one first, and where that has ended a new one.
  Result<std::unique_ptr<DeviceClient>> Attach(int stop_fd, UniqueFd* kept);
  // Calls the hook `alive`, if it is time.
  void Live();
  // Waits; true when `stop_fd` is readable.
  bool StoppedWithin(int stop_fd, Duration timeout);
  // Serves one attachment.  OK when told to stop.
  Status Serve(int stop_fd);
  void FireTimers();
  void Drop(ObjectId id);
  // Starts what can be started, oldest first.
  void Schedule();
  Duration NextTimeout() const;
  // Tells the daemon what was counted.
  void TellCounts();
  void DropAll();

  // Whether the broker has died, so that no file that it opens can be opened.
  bool BrokerGone() const;

  const FetcherOptions options_;
  const cachecore::Clock& clock_;
  const FetcherHooks hooks_;
  Duration lived_{0};  // When Live last said so.
  std::mt19937 random_{std::random_device()()};
  HttpEngine http_;
  FileEngine file_;
  SourceTable sources_;
  std::unique_ptr<DeviceClient> client_;
  cachecore::TreeCache trees_{kCheckedTreeBlocks};
  OriginSpells spells_;
  std::unique_ptr<FetchContext> context_;  // Of the current attachment.
  std::unordered_map<ObjectId, std::unique_ptr<ObjectFetcher>> objects_;
  std::set<ObjectId> busy_;  // Those that are not idle.
  Timers timers_;            // For their OnTimer.
  uint64_t next_order_ = 0;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_FETCHER_H_
