// DevicePort: the daemon's end of the device protocol: messages for the fetcher, and its commands.
//
// Model    a fetcher attaches, takes messages by NextMessage, and answers with commands.  A
//          `filled` is recorded in the store before the engine counts its bytes as present.  A new
//          object gets its data file with its OPEN, and its record with its copen.
// Errors   a result for each command: 0, or the negative errno that the fetcher gets.  A store that
//          takes no writes does not fail a `filled`: the bytes are fetched again after a restart.
// Threads  its calls are made by one thread at a time, beside any call of the other parts.
// Owns     nothing; the parts that it is given outlive it.
// Crash    data (by the fetcher), presence record for this boot, then memory, then the waiting
//          reads.
// See      docs/protocol.md; docs/design.md "Life of a read".

#ifndef CACHECORE_CACHE_DEVICE_PORT_H_
#define CACHECORE_CACHE_DEVICE_PORT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/acquisitions.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/durability.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/cache/verification.h"
#include "cachecore/engine/fetcher_totals.h"
#include "cachecore/logging/log_limiter.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/store/metadata_writer.h"

namespace cachecore {

struct OutgoingMessage {
  wire::Message message;
  ObjectNumber object;  // With OPEN and READ.
  UniqueFd data_fd;     // With OPEN.
  // With the OPEN of an object that is to replace another: see Object.
  std::optional<ObjectNumber> succeeds = std::nullopt;
  bool may_replace = false;
};

// What the program of an earlier life's device has of an object.
struct KeptObject {
  ObjectNumber number;
  std::optional<ObjectId> live;  // Its instance, unless that was closed or refused.
  std::vector<KeptRequest> requests;
  // With an OPEN: how the object is made again if nothing was known of it yet.
  std::string volume_key;
  std::string cookie_key;
  std::optional<ObjectNumber> succeeds;
  bool may_replace = false;
};

class DevicePort {
 public:
  struct Options {
    bool fail_on_detach = false;  // The detach policy: `fail`, or `hold`.
    bool serve_through = false;   // `full` and `through` are offered to the fetcher.
  };
  // What it works on.
  struct Parts {
    MetadataStore* store;
    const DataStore& data;
    IdReserve* ids;
    MetadataWriter* writer;
    LogLimiter* log;
    GuardedEngine* core;
    Catalogue* catalogue;
    Acquisitions* acquisitions;
    Durability* durability;
    Verification* verification;
    Totals* totals = nullptr;  // For what the fetcher counts.
  };
  DevicePort(Options options, const Parts& parts);

  // device_port.cc
  Result<Generation> Attach() EXCLUDES(core_->mu);
  void Detach() EXCLUDES(core_->mu);
  // The fetcher has died, and its connection may have a successor.
  void NoteDeath() EXCLUDES(core_->mu);
  // Another fetcher goes on with the connection: a Detach that fails nothing, whatever the policy,
  // and an Attach.
  Result<Generation> Resume() EXCLUDES(core_->mu);
  bool serves_through() const { return options_.serve_through; }
  // With `room` and `failure`: see Engine::Select; `failure` is also the errno of an OPEN that ends
  // since its data file cannot be opened.
  std::optional<OutgoingMessage> NextMessage(size_t room = SIZE_MAX, int* failure = nullptr)
      EXCLUDES(core_->mu);
  // Whether NextMessage may have something.
  bool HasMessage() EXCLUDES(core_->mu);
  // An OPEN that NextMessage gave did not reach the fetcher: it ends with `why`.  True: it is held
  // until it is tried again.
  bool FailOpen(MsgId id, const Status& why) EXCLUDES(core_->mu);
  // These bytes are in the data file of an object that no instance may be open of.  EINVAL: they
  // are not all in the object, or it is not known.
  Status AddPresence(ObjectNumber number, ByteRange range) EXCLUDES(core_->mu, catalogue_->load_mu);
  // The first byte of a live object from `from` on that is present, or absent; the object's end
  // when there is none.  EINVAL: no instance of that id is open.
  Result<uint64_t> FindPresence(ObjectId id, uint64_t from, bool is_present) EXCLUDES(core_->mu);

  // The descriptor that an object is written through.
  Result<UniqueFd> OpenDataFile(ObjectNumber number) const { return data_.OpenForFetcher(number); }

  // device_resume.cc
  // The device of an earlier life goes on, with what its program was given: an Attach, before any
  // read or acquisition.
  Result<Generation> ResumeDevice(const std::vector<KeptObject>& objects)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // What such a device must no longer keep: see Engine::TakeEnded.
  std::vector<MsgId> TakeEnded() EXCLUDES(core_->mu);
  // Whether that instance may fill its object and complete requests.
  bool IsLive(ObjectId id) EXCLUDES(core_->mu);

  // device_commands.cc
  // Carries commands out in order; a result each.  Unparsed ones come as their error.
  std::vector<int32_t> Execute(const std::vector<Result<wire::Command>>& commands)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // Returns when the fills that were begun before the call are in the store and in memory.
  void AwaitFills() EXCLUDES(fills_mu_);
  // Carries a `through` out with the descriptor that came with it, or none; the result.
  int32_t Through(const wire::ThroughCommand& command, UniqueFd bytes)
      EXCLUDES(core_->mu, catalogue_->load_mu);

 private:
  Result<UniqueFd> PrepareDataFile(ObjectNumber number) EXCLUDES(core_->mu);
  Status ResumeObject(const KeptObject& kept) EXCLUDES(core_->mu, catalogue_->load_mu);
  Status MakeUnknownAgain(const KeptObject& kept) EXCLUDES(core_->mu, catalogue_->load_mu);

  void BeginFills() EXCLUDES(fills_mu_);
  void EndFills() EXCLUDES(fills_mu_);
  void ExecuteFills(const std::vector<const wire::Command*>& commands,
                    std::vector<int32_t>* results) EXCLUDES(core_->mu);
  // Puts the presence that a `filled` brings into `batch`; the result that it has so far.
  int32_t RecordFill(const wire::Command& command, MetadataBatch* batch) REQUIRES(core_->mu);
  int32_t Fill(const wire::Command& command, Effects* effects) REQUIRES(core_->mu);
  void RemoveRefused(const MetadataBatch& recorded) EXCLUDES(core_->mu);
  int32_t ExecuteOne(const wire::Command& command) EXCLUDES(core_->mu, catalogue_->load_mu);
  Status RecordFirst(const wire::Command& command) EXCLUDES(core_->mu);
  int32_t ExecuteCopen(wire::CopenCommand command) EXCLUDES(core_->mu, catalogue_->load_mu);
  // Makes the file and the record of a new object.
  Status CreateObject(const ObjectRecord& fresh, const UniqueFd& file, wire::CopenCommand* command)
      EXCLUDES(core_->mu, catalogue_->load_mu);

  const Options options_;
  MetadataStore* const store_;
  const DataStore& data_;
  IdReserve* const ids_;
  MetadataWriter* const writer_;
  LogLimiter* const log_;
  GuardedEngine* const core_;
  Catalogue* const catalogue_;
  Acquisitions* const acquisitions_;
  Durability* const durability_;
  Verification* const verification_;
  FetcherTotals fetcher_totals_;
  Mutex fills_mu_;
  CondVar fills_done_;
  // Runs of fills, which come one after the other.
  uint64_t fills_begun_ GUARDED_BY(fills_mu_) = 0;
  uint64_t fills_ended_ GUARDED_BY(fills_mu_) = 0;
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_DEVICE_PORT_H_
