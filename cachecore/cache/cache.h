// Cache: the engine with its memory of disk; what fusefs/ uses in place of the engine.
//
// Model    volumes hold objects.  An object becomes known when a fetcher first opens it, and from
//          then on is served from its data file where present, by the fetcher where not.  Cache is
//          a front: it puts its parts together, and each of them has a header of its own.
// Units    bytes from the start of an object; durations.
// Errors   Status with the errno that a reader, the fetcher or the operator gets.  A damaged record
//          affects its object only: it is quarantined and the object fetched again.  While the
//          store takes no writes, reads are served, and what is fetched is fetched again after a
//          restart.
// Threads  thread-safe.  No lock is held over disk I/O or callbacks, except Catalogue::load_mu,
//          which makes objects load one at a time.  A callback runs on the thread that completes
//          it, and may run before the call that registered it returns.
// Owns     the metadata store, the data files, the parts.  Starts no thread: the daemon drives
//          Expire and Sync.
// Crash    write order of a fill: data (by the fetcher), presence record for this boot, then
//          memory, then the waiting reads.  Sync: fdatasync, then the durable presence record.
// See      docs/design.md "Durability" and "Life of a read".

#ifndef CACHECORE_CACHE_CACHE_H_
#define CACHECORE_CACHE_CACHE_H_

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/cache/acquisitions.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/culler.h"
#include "cachecore/cache/device_port.h"
#include "cachecore/cache/durability.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/cache/object_info.h"
#include "cachecore/cache/reads.h"
#include "cachecore/cache/verification.h"
#include "cachecore/engine/engine.h"
#include "cachecore/logging/log_limiter.h"
#include "cachecore/policy/choices.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/store/metadata_writer.h"
#include "cachecore/verity/tree_cache.h"

namespace cachecore {

struct CacheOptions {
  EngineOptions engine;
  bool fail_on_detach = false;  // The detach policy: `fail`, or `hold`.
  bool serve_through = false;   // While a data file takes no writes: serve, and do not keep.
  Duration request_timeout{0};  // Zero waits for ever.
  // Objects in memory, each with a descriptor; the least recently used idle ones are evicted.
  size_t max_objects = 1024;
  uint64_t msg_id_block = 65536;  // How many are reserved at a time.
  Totals* totals = nullptr;       // Go on with what is counted; null: nothing does.
};

struct RequestInfo {
  MsgId id;
  wire::Opcode opcode;
  ObjectNumber object;
  ByteRange range;
  Duration age;
  uint32_t waiters;
  bool published;  // It may be delivered.
  bool delivered;
  std::string cause;
};

// A read or an acquisition that waits.
using WaitTicket = std::variant<ReadTicket, AcquireTicket>;

class Cache {
 public:
  // `wake_device` is called, from any thread, when NextMessage may have something.
  static Result<std::unique_ptr<Cache>> Open(CacheOptions options, const Clock& clock,
                                             std::unique_ptr<MetadataStore> store, DataStore data,
                                             std::function<void()> wake_device);

  // Volumes: see Catalogue.
  Result<ObjectNumber> AddVolume(const std::string& key) { return catalogue_.AddVolume(key); }
  Result<std::optional<VolumeRecord>> FindVolume(const std::string& key) {
    return catalogue_.FindVolume(key);
  }
  Result<std::optional<VolumeRecord>> LoadVolume(ObjectNumber number) {
    return catalogue_.LoadVolume(number);
  }
  Status ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit) {
    return store_->ScanVolumes(visit);
  }
  Status ScanObjects(ObjectNumber volume, const std::function<bool(const ObjectRecord&)>& visit) {
    return store_->ScanObjects(volume, visit);
  }

  // Objects: see Acquisitions and Catalogue.
  std::optional<AcquireTicket> Acquire(const VolumeRecord& volume, const std::string& cookie,
                                       Duration timeout, Freshness freshness, InfoDone done) {
    return acquisitions_.Acquire(volume, cookie, timeout, freshness, std::move(done));
  }
  Result<std::optional<ObjectInfo>> Find(const std::string& volume, const std::string& cookie) {
    return acquisitions_.Find(volume, cookie);
  }
  bool Close(const std::string& volume, const std::string& cookie) {
    return acquisitions_.Close(volume, cookie);
  }
  Result<ObjectInfo> Stat(ObjectNumber number) { return catalogue_.Stat(number); }
  // Drops an object and its data; the next acquisition fetches it again.  `why` is for the log.
  Status Drop(ObjectNumber number, const std::string& why) EXCLUDES(core_.mu, catalogue_.load_mu);
  // The directory of the data files, and the object's data file below it.
  const std::string& DataDirectory() const { return data_.directory(); }
  std::string PathOfData(ObjectNumber number) const { return data_.PathOf(number); }

  // Reads: see Reads.
  Result<std::optional<FileSlice>> TryRead(ObjectNumber number, ByteRange range) {
    return reads_.TryRead(number, range);
  }
  ReadTicket Read(ObjectNumber number, ByteRange range, SliceDone done, Reader reader = {}) {
    return reads_.Read(number, range, std::move(done), std::move(reader));
  }
  void NoteUnreadable(ObjectNumber number, const FileSlice& slice) {
    reads_.NoteUnreadable(number, slice);
  }
  void NoteFailedRead() { reads_.NoteFailedRead(); }
  void SetRefusesReads(ObjectNumber number, bool refuses) {
    reads_.SetRefusesReads(number, refuses);
  }
  void EndUnwanted(const std::function<bool(const std::string&, const std::string&)>& wanted,
                   const std::function<bool(pid_t)>& is_gone) {
    reads_.EndUnwanted(wanted, is_gone);
  }
  // Ends a read or an acquisition with `why`; false when it has ended.
  bool Withdraw(const WaitTicket& ticket, const Status& why) EXCLUDES(core_.mu);

  // Bytes that are checked: see Verification.
  Status ReadChecked(const FileSlice& slice, std::span<uint8_t> buffer) {
    return verification_.ReadChecked(slice, buffer);
  }
  Status ReadAssembled(const FileSlice& slice, std::span<uint8_t> out) {
    return verification_.ReadAssembled(slice, out);
  }
  Result<RecheckResult> Recheck(ObjectNumber number, ByteRange window, Duration patience,
                                const std::stop_token& stop) {
    return verification_.Recheck(number, window, patience, stop);
  }

  // The fetcher's side.
  DevicePort& device() { return device_; }

  // Driven by the daemon's own threads.
  void Expire() EXCLUDES(core_.mu);
  // See Durability.  By one thread at a time.
  void Sync() { durability_.Sync(); }
  // Has the store write to its disk again where that has taken no writes.  From time to time, by
  // Sync's thread.
  void Heal() { writer_.Heal(); }
  // See Culler.  By one thread at a time.
  Culler& culler() { return culler_; }
  // The cache's limits, and its pins.  A pin is set by Culler.
  Choices& choices() { return choices_; }
  // Of the data files, in bytes of the disk.
  Result<uint64_t> AllocatedBytes() const;
  Result<DiskSpace> disk_space() const { return data_.Space(); }
  uint64_t unsynced_bytes() { return durability_.unsynced_bytes(); }

  // For the operator.
  std::vector<ObjectInfo> DescribeObjects() EXCLUDES(core_.mu);
  std::vector<RequestInfo> DescribeRequests() EXCLUDES(core_.mu);
  EngineCounters counters() EXCLUDES(core_.mu);
  // Reads that wait and have waited: see ReadHistory.
  TraceAnswer Trace(const TraceQuestion& question) EXCLUDES(core_.mu);
  Result<ObjectHistory> HistoryOf(ObjectNumber number) EXCLUDES(core_.mu, catalogue_.load_mu);
  Generation generation() EXCLUDES(core_.mu);
  // For errors that others can cause.
  LogLimiter& log() { return log_; }
  SyncCounters sync_counters() { return durability_.counters(); }
  // Why the store's disk takes no writes now; "" when it does.
  std::string store_trouble() { return writer_.trouble(); }

 private:
  Cache(CacheOptions options, const Clock& clock, std::unique_ptr<MetadataStore> store,
        DataStore data, std::function<void()> wake_device);

  Status ReplayJournal(bool has_kernel_instances) EXCLUDES(core_.mu, catalogue_.load_mu);

  const Clock& clock_;
  const std::unique_ptr<MetadataStore> store_;
  const DataStore data_;
  Choices choices_{store_.get()};
  TreeCache trees_{Verification::kCheckedTreeBlocks};

  LogLimiter log_;
  const Count left_out_;  // Goes on with the lines that it leaves out.
  const uint64_t left_out_before_;
  // Each part uses those above it.
  IdReserve ids_;
  MetadataWriter writer_;
  GuardedEngine core_;
  Catalogue catalogue_;
  Acquisitions acquisitions_;
  Reads reads_;
  Durability durability_;
  Verification verification_;
  DevicePort device_;
  Culler culler_;
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_CACHE_H_
