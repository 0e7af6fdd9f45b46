// Cache: the engine with its memory of disk; the only engine header that fusefs includes.
//
// Model    volumes hold objects.  An object becomes known when a fetcher first opens it, and from
// then
//          on is served from its data file where present, by the fetcher where not.  Cache puts the
//          metadata store, the data files and Engine together and keeps the write order.
// Units    bytes from the start of an object; durations.
// Errors   Status with the errno that a reader, the fetcher or the operator is to see.  A damaged
//          record costs its object only: it is quarantined and the object fetched again.  A store
//          that cannot be written to costs the memory of what was fetched, not the read.
// Threads  thread-safe.  No lock of ours is held over disk I/O or callbacks, except load_mu_, which
//          makes objects load one at a time, and refill_mu_.  Callbacks run on whichever thread
//          completes them, and may run before the call that registered them returns.  The device's
//          calls (Attach to Execute) are made by one thread.
// Owns     the metadata store, the data files.  Starts no thread: the daemon drives Expire and
// Sync. Crash    write order of a fill: data (by the fetcher), presence record for this boot, then
// memory,
//          then the waiting reads.  Sync: fdatasync, then the durable presence record.
// See      docs/design.md "Durability" and "Life of a read".

#ifndef CACHECORE_CACHE_H_
#define CACHECORE_CACHE_H_

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "cachecore/clock.h"
#include "cachecore/data_store.h"
#include "cachecore/engine.h"
#include "cachecore/id_block.h"
#include "cachecore/log_limiter.h"
#include "cachecore/metadata_store.h"
#include "cachecore/mutex.h"
#include "cachecore/status.h"
#include "cachecore/unique_fd.h"
#include "cachecore/verified_reader.h"
#include "cachecore/wire.h"

namespace cachecore {

struct CacheOptions {
  EngineOptions engine;
  bool fail_on_detach = false;  // The detach policy: `fail`, or `hold`.
  Duration request_timeout{0};  // Zero waits for ever.
  // Of which each holds a descriptor; the least used idle ones leave memory for others.
  size_t max_objects = 1024;
};

struct ObjectInfo {
  ObjectNumber number;
  ObjectNumber volume;
  std::string volume_key;
  std::string cookie_key;
  uint64_t size_bytes = 0;
  uint64_t present_bytes = 0;
  ObjectState state = ObjectState::kClose;
  bool stale = false;
  std::string last_error;
  std::optional<Digest> verity = std::nullopt;
};

struct RequestInfo {
  MsgId id;
  wire::Opcode opcode;
  ObjectNumber object;
  ByteRange range;
  Duration age;
  uint32_t waiters;
  bool delivered;
  std::string cause;
};

// Bytes that are in a data file now; `range` is clipped to the object.
struct FileSlice {
  std::shared_ptr<const UniqueFd> file;
  ByteRange range;
  std::shared_ptr<const ObjectVerity> verity;  // Set: only what ReadChecked gives may be used.
};

// What Recheck has found in a window of an object.
struct RecheckResult {
  uint64_t checked_bytes = 0;  // That are present.
  uint64_t wrong_bytes = 0;    // Of these: they, or a tree block above them.
  uint64_t healed_bytes = 0;   // Of these: fetched again, and right.
  uint64_t next = 0;           // Where the next window begins.
  std::string error;           // Why not all of them are healed.
};

struct SyncCounters {
  uint64_t bytes = 0;   // Made durable.
  Duration longest{0};  // One Sync.
};

// Something that waits in the Cache and can be told to stop waiting.
struct AcquireTicket {
  ObjectNumber object;
  uint64_t serial = 0;
};
using WaitTicket = std::variant<ReadTicket, AcquireTicket>;

using SliceDone = std::function<void(const Status&, const FileSlice&)>;
using InfoDone = std::function<void(const Result<ObjectInfo>&)>;

struct OutgoingMessage {
  wire::Message message;
  UniqueFd data_fd;  // With OPEN.
};

class Cache {
 public:
  static constexpr size_t kCheckedTreeBlocks = 8192;  // In memory: 32 MiB, for 4 GiB of data.

  // `wake_device` is called, from any thread, when NextMessage may have something.
  static Result<std::unique_ptr<Cache>> Open(CacheOptions options, const Clock& clock,
                                             std::unique_ptr<MetadataStore> store, DataStore data,
                                             std::function<void()> wake_device);

  // Volumes.
  Result<ObjectNumber> AddVolume(const std::string& key) EXCLUDES(mu_, load_mu_);
  Result<std::optional<VolumeRecord>> FindVolume(const std::string& key) EXCLUDES(mu_);
  Result<std::optional<VolumeRecord>> LoadVolume(ObjectNumber number) EXCLUDES(mu_);
  Status ScanVolumes(const std::function<bool(const VolumeRecord&)>& visit);
  Status ScanObjects(ObjectNumber volume, const std::function<bool(const ObjectRecord&)>& visit);

  // Objects.  Acquire finds one by name, asking the fetcher if nothing is known of it; `timeout`
  // zero is the request timeout.  With `replace_stale`, one whose origin has changed is dropped
  // first (the caller knows that nobody uses it).  Nullopt when `done` was called already.
  std::optional<AcquireTicket> Acquire(const VolumeRecord& volume, const std::string& cookie,
                                       Duration timeout, bool replace_stale, InfoDone done)
      EXCLUDES(mu_, load_mu_);
  Result<ObjectInfo> Stat(ObjectNumber number) EXCLUDES(mu_, load_mu_);

  // Reads.  TryRead gives the slice if all of it is present, nullopt if somebody has to fetch.
  Result<std::optional<FileSlice>> TryRead(ObjectNumber number, ByteRange range)
      EXCLUDES(mu_, load_mu_);
  // The bytes of a slice with a digest, checked, at least those of its range: reads the blocks that
  // it touches into `buffer`, whose first byte is that of the first block.  EAGAIN: some were
  // wrong; they are absent now, and can be waited for.  Reads the disk.
  Status ReadChecked(const FileSlice& slice, std::span<uint8_t> buffer) EXCLUDES(mu_, load_mu_);
  // Reads what is present of a window again, from the disk, tree and all; has what is wrong fetched
  // again and waits for that, `patience` at most.  EOPNOTSUPP for an object without a digest,
  // ECANCELED once `stop` is asked for.
  Result<RecheckResult> Recheck(ObjectNumber number, ByteRange window, Duration patience,
                                const std::stop_token& stop) EXCLUDES(mu_, load_mu_);
  // Calls `done` once, when the range is present or cannot be.  Null when it was called already.
  // `caller`: the process that reads, for the log.
  ReadTicket Read(ObjectNumber number, ByteRange range, SliceDone done, pid_t caller = 0)
      EXCLUDES(mu_, load_mu_);
  // A read of these bytes, which are present, got an error, or fewer: says which and why, once.
  void NoteUnreadable(ObjectNumber number, const FileSlice& slice) EXCLUDES(mu_);
  // A read has failed otherwise than by its `done`.
  void NoteFailedRead() EXCLUDES(mu_);
  // Ends a read or an acquisition with `why`; false when it has ended.
  bool Withdraw(const WaitTicket& ticket, const Status& why) EXCLUDES(mu_);

  // Ends the requests for objects that nobody reads, waits for or `wanted`: a volume's key, an
  // object's cookie.  `wanted` is called with a lock held, and does no more than look.  Readers that
  // are gone do not count.
  void EndUnwanted(const std::function<bool(const std::string&, const std::string&)>& wanted,
                   const std::function<bool(pid_t)>& is_gone) EXCLUDES(mu_);

  // Shut: ends every read that waits for the object with EIO, and each later one that would have to
  // wait, until it is opened up again.  Not remembered by the next life.
  void SetShut(ObjectNumber number, bool shut) EXCLUDES(mu_);

  // The device.
  Result<Generation> Attach() EXCLUDES(mu_);
  void Detach() EXCLUDES(mu_);
  // Another fetcher goes on with the connection: a Detach that fails nothing, whatever the policy,
  // and an Attach.
  Result<Generation> Resume() EXCLUDES(mu_);
  std::optional<OutgoingMessage> NextMessage() EXCLUDES(mu_);
  // Carries commands out in order; a result each.  Unparsed ones come as their error.
  std::vector<int32_t> Execute(const std::vector<Result<wire::Command>>& commands)
      EXCLUDES(mu_, load_mu_);

  // Driven by the daemon's own threads.
  void Expire() EXCLUDES(mu_);
  // Makes what has been filled durable, in this life and in earlier ones of this boot.  Slow; by
  // one thread at a time.
  void Sync() EXCLUDES(mu_, load_mu_);
  // Has the store write to its disk again where that has taken no writes.  From time to time, by
  // Sync's thread.
  void Heal() EXCLUDES(mu_);
  uint64_t unsynced_bytes() EXCLUDES(mu_);

  // For the operator.
  std::vector<ObjectInfo> DescribeObjects() EXCLUDES(mu_);
  std::vector<RequestInfo> DescribeRequests() EXCLUDES(mu_);
  EngineCounters counters() EXCLUDES(mu_);
  Generation generation() EXCLUDES(mu_);
  // For errors that others can cause.
  LogLimiter& log() { return log_; }
  SyncCounters sync_counters() EXCLUDES(mu_);
  // Why the store's disk takes no writes now; "" when it does.
  std::string store_trouble() EXCLUDES(mu_);

 private:
  // Effects, and what must be copied out under the lock to carry them out without it.
  struct Work {
    Effects effects;
    std::vector<JournalRecord> journal;
    std::vector<ObjectRecord> records;
  };

  Cache(CacheOptions options, const Clock& clock, std::unique_ptr<MetadataStore> store,
        DataStore data, std::function<void()> wake_device);

  // cache.cc
  static ObjectRecord RecordOf(const Object& object);
  void Seal(Work* work) REQUIRES(mu_);
  void ForgetNames(const Effects& effects) REQUIRES(mu_);
  void Run(Work work) EXCLUDES(mu_);
  // Commits; a failure is logged once per spell and costs what the header's Errors says.
  bool CommitOrLog(const MetadataBatch& batch) EXCLUDES(mu_);
  FileSlice WithDigest(FileSlice slice, ObjectNumber number) EXCLUDES(mu_);
  void NoteStore(const Status& status) EXCLUDES(mu_);
  ObjectInfo InfoOf(const Object& object) const REQUIRES(mu_);
  std::string Circumstances() const REQUIRES(mu_);
  Duration DeadlineAfter(Duration timeout) const;
  // Every call that may make requests comes through here first.
  Status EnsureIds() EXCLUDES(mu_, refill_mu_);
  // And one that may make a volume or an object through here.
  Status EnsureNumbers() EXCLUDES(mu_, refill_mu_);
  Status Refill(IdBlock* block, Counter counter, uint64_t count) EXCLUDES(mu_, refill_mu_);
  uint64_t TakeFrom(IdBlock* block) NO_THREAD_SAFETY_ANALYSIS { return block->Take(); }

  // cache_load.cc
  // ESTALE when nothing is known of it.  It may leave memory again at once: try again then.
  Status EnsureLoaded(ObjectNumber number) EXCLUDES(mu_, load_mu_);
  void MakeRoom(size_t limit) EXCLUDES(mu_);
  Status LoadLocked(ObjectNumber number) REQUIRES(load_mu_) EXCLUDES(mu_);
  Result<std::optional<ObjectNumber>> FindByName(const VolumeRecord& volume,
                                                 const std::string& cookie) REQUIRES(load_mu_)
      EXCLUDES(mu_);
  Result<std::optional<ObjectInfo>> FindKnown(const VolumeRecord& volume, const std::string& cookie,
                                              bool replace_stale) REQUIRES(load_mu_) EXCLUDES(mu_);
  Object* FindOrMakeUnknown(const VolumeRecord& volume, const std::string& cookie) REQUIRES(mu_);
  Status DropObject(ObjectNumber number, const std::string& why) REQUIRES(load_mu_) EXCLUDES(mu_);
  Status Forget(const ObjectRecord& record) REQUIRES(load_mu_) EXCLUDES(mu_);
  Status Quarantine(ObjectNumber number, ObjectNumber volume, const std::string& cookie,
                    const Status& damage);
  Status ResumeJournal() EXCLUDES(mu_, load_mu_);

  // cache_verity.cc
  Status Unpresent(const ObjectVerity& object, const std::vector<WrongRange>& wrong)
      EXCLUDES(mu_, load_mu_);
  Status AwaitRange(ObjectNumber number, ByteRange range, Duration patience,
                    const std::stop_token& stop);

  // cache_sync.cc
  struct SyncItem {
    ObjectNumber number;
    std::shared_ptr<const UniqueFd> file;
    std::vector<ByteRange> ranges;
  };
  void AdoptUnsynced() EXCLUDES(mu_, load_mu_);
  void WriteDueRecords() EXCLUDES(mu_);
  void SyncOne(const SyncItem& item) EXCLUDES(mu_, load_mu_);
  // REQUIRES: presence of the object has just been recorded.
  void EraseStray(ObjectNumber number) EXCLUDES(mu_);
  Status RecordDurable(const SyncItem& item) EXCLUDES(mu_);

  // cache_device.cc
  int32_t Fill(const wire::Command& command, Effects* effects) REQUIRES(mu_);
  Status RecordFirst(const wire::Command& command) EXCLUDES(mu_);
  int32_t ExecuteOne(const wire::Command& command) EXCLUDES(mu_, load_mu_);
  int32_t ExecuteCopen(wire::CopenCommand command) EXCLUDES(mu_, load_mu_);
  void ExecuteFills(const std::vector<const wire::Command*>& commands,
                    std::vector<int32_t>* results) EXCLUDES(mu_);
  Result<UniqueFd> PrepareDataFile(ObjectNumber number) EXCLUDES(mu_);

  const CacheOptions options_;
  const Clock& clock_;
  const std::unique_ptr<MetadataStore> store_;
  const DataStore data_;
  const std::function<void()> wake_device_;
  TreeCache trees_{kCheckedTreeBlocks};

  LogLimiter log_{clock_};
  Mutex refill_mu_;  // Makes one thread refill ids.  Before mu_.
  Mutex load_mu_;    // Before mu_.
  Mutex durable_mu_;  // Held over a change of durable presence, on disk and in memory.  Before mu_.
  Mutex mu_;
  IdBlock msg_ids_ GUARDED_BY(mu_);
  IdBlock object_ids_ GUARDED_BY(mu_);
  IdBlock object_numbers_ GUARDED_BY(mu_);
  Engine engine_ GUARDED_BY(mu_);
  std::unordered_map<std::string, ObjectNumber> volume_numbers_ GUARDED_BY(mu_);
  std::unordered_map<ObjectNumber, std::string> volume_keys_ GUARDED_BY(mu_);
  std::unordered_map<std::string, ObjectNumber> by_name_ GUARDED_BY(mu_);  // See NameOf.
  bool attached_ GUARDED_BY(mu_) = false;
  bool refusing_ GUARDED_BY(mu_) = false;  // Policy `fail`, and the fetcher is gone.
  std::unordered_set<ObjectNumber> shut_ GUARDED_BY(mu_);
  std::unordered_set<ObjectNumber> dropped_ GUARDED_BY(load_mu_);  // Not forgotten by the disk yet.
  std::string store_trouble_ GUARDED_BY(mu_);  // "" while it takes writes.
  SyncCounters sync_counters_ GUARDED_BY(mu_);
  bool adopted_ = false;  // Sync's thread only.
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_H_
