// Engine: objects, their pending requests and the reads that wait on them, as a pure state machine.
//
// Model    a read of absent bytes waits at its first missing byte.  Every missing byte that a read
//          waits for is covered by exactly one READ request of its object; the requests of one
//          object never overlap.  Filled bytes move or finish the reads that wait there.  A request
//          that ends without its bytes fails the reads that wait inside it, or is made again if it
//          has brought some.  Each read ends exactly once.  What has to happen outside (journal,
//          replies, wake-ups) is collected in Effects, which the caller carries out after it has
//          released its lock.
// Units    bytes from the start of an object; times by Clock::Now().
// Errors   answers to the device are errnos (0 or negative, as the kernel's writes give them);
//          broken invariants CHECK-fail.
// Threads  thread-compatible; guarded by GuardedEngine::mu.  No I/O; callbacks only leave inside
//          Effects.
// Owns     objects and requests.  A ReadTicket keeps its read's memory, not its place in line.
// Cost     O(log n) per request, read or fill, plus the reads that a fill touches.
// Crash    memory only.  Cache rebuilds it from the metadata store.
// See      docs/semantics.md; docs/design.md "Life of a read"; engine_test.cc (model test).

#ifndef CACHECORE_ENGINE_ENGINE_H_
#define CACHECORE_ENGINE_ENGINE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/engine/object.h"
#include "cachecore/engine/read_history.h"
#include "cachecore/engine/request_table.h"
#include "cachecore/protocol/wire.h"

namespace cachecore {

// What the caller must do once it holds no lock, in this order.
struct Effects {
  struct Forgotten {
    ObjectNumber number;
    ObjectNumber volume;
    std::string cookie_key;
  };
  std::vector<MsgId> created;  // Try to journal them, then Publish.
  std::vector<MsgId> ended;    // Erase their journal records.
  struct FinishedRead {
    ReadDone done;
    Status status;
    ReadBytes bytes;
  };
  std::vector<FinishedRead> reads;
  std::vector<std::pair<AcquireDone, Status>> acquires;
  std::vector<ObjectNumber> changed;  // Their records must be written again.
  std::vector<Forgotten> forgotten;   // Remove their names from memory.
  std::vector<UseRecord> uses;        // Keep them.
  std::vector<std::string> log;       // Sentences for the operator, each once.
  bool wake_device = false;           // A message may be deliverable now.
};

struct EngineOptions {
  uint64_t fetch_size = 64 << 10;      // Smallest fetch, and its alignment; a power of two.
  uint64_t max_fetch = 4 << 20;        // Largest READ.
  uint64_t read_ahead_max = 64 << 20;  // 0 switches read-ahead off.
  bool exact = false;                  // READs are the kernel's: the very hole, at most 2 MiB.
  // As in the kernel: the READs that a closed instance had been given go out again after `restore`
  // only, not at once; an OPEN that is being answered goes out again too, and fails with EEXIST.
  bool kernel_instances = false;
  bool notes_uses = false;    // Parts are to be culled by when they were last used.
  uint32_t max_refusals = 3;  // Refused reopens in a row before an object's reads fail.
};

struct EngineCounters {
  uint64_t reads_waited = 0;
  uint64_t reads_failed = 0;
  uint64_t reads_withdrawn = 0;
  uint64_t reads_expired = 0;
  uint64_t requests = 0;
  uint64_t bytes_filled = 0;
  uint64_t bytes_filled_twice = 0;
  uint64_t bytes_found_wrong = 0;
  uint64_t bytes_culled = 0;
  uint64_t bytes_through = 0;
  uint64_t bytes_in_flight_at_detach =
      0;  // READs a fetcher had unanswered when it left, summed up.

  // Calls `visit` with the name and the value of each.
  template <typename Visit>
  void ForEach(Visit visit) const {
    visit("reads_waited", reads_waited);
    visit("reads_failed", reads_failed);
    visit("reads_withdrawn", reads_withdrawn);
    visit("reads_expired", reads_expired);
    visit("requests", requests);
    visit("bytes_filled", bytes_filled);
    visit("bytes_filled_twice", bytes_filled_twice);
    visit("bytes_found_wrong", bytes_found_wrong);
    visit("bytes_culled", bytes_culled);
    visit("bytes_through", bytes_through);
    visit("bytes_in_flight_at_detach", bytes_in_flight_at_detach);
  }
};

// A request that the program of an earlier life's device has been given, and may answer.
struct KeptRequest {
  MsgId id;
  wire::Opcode opcode = wire::Opcode::kRead;
  ByteRange range;      // READ only.
  bool is_new = false;  // `restore` has marked it since: it is to be delivered again.
};

// One message chosen for delivery; it stays in the table, pinned by the caller's single device
// thread.
struct Delivery {
  wire::Message message;
  Object* object = nullptr;  // Null for CLOSE.
};

class Engine {
 public:
  // `take_msg_id` and `take_object_id` give ids that never recur.
  Engine(EngineOptions options, const Clock& clock, std::function<MsgId()> take_msg_id,
         std::function<ObjectId()> take_object_id);

  // Objects.  AddObject takes one loaded from the store, or new (size not known yet).
  Object* AddObject(std::unique_ptr<Object> object);
  Object* Find(ObjectNumber number);
  // Ends all its requests with EIO, tells the fetcher with CLOSE, forgets it.
  void Drop(Object* object, Effects* effects);
  // Removes it from memory; its record and its bytes are on disk.  The fetcher gets a CLOSE.
  // REQUIRES: IsIdle.
  void Evict(Object* object, Effects* effects);
  // Ends the background requests.  REQUIRES: no read and no acquisition waits.  The object is
  // removed if nothing was known of it.
  void EndBackground(Object* object, Effects* effects);

  // Asks the fetcher for an object that it has not open; joins an OPEN already on its way.
  // Returns the serial that withdraws it.
  uint64_t Acquire(Object* object, Duration deadline, AcquireDone done, Effects* effects);

  // Ends an acquisition early.  False when it has ended already.
  bool WithdrawAcquire(ObjectNumber number, uint64_t serial, const Status& why, Effects* effects);

  // Waits for `range`, which lies inside the object and is not all present.  `deadline` zero is
  // never.
  ReadTicket Read(Object* object, ByteRange range, Duration deadline, ReadDone done,
                  Effects* effects, Reader reader = {});
  // Notes that `range` is being read, present or not.  Returns what to Prefetch for a sequential
  // reader, mostly nothing.
  ByteRange AdvanceReadAhead(Object* object, ByteRange range);
  // Notes that `range`, which is present, is being used.
  void NoteUse(Object* object, ByteRange range) {
    if (options_.notes_uses) object->uses.Note(range, tick_);
  }
  // Requests `range`, which may be empty, without a read that waits for it: read-ahead, or a
  // request of an earlier daemon.
  void Prefetch(Object* object, ByteRange range, Effects* effects);
  // Ends a read early.  False when it has ended already.
  bool Withdraw(const ReadTicket& read, const Status& why, Effects* effects);
  // Ends every read and acquisition whose deadline has come.
  // `circumstances` is the cause given where the fetcher has named none.
  // Once a second also logs what has waited for long: see ReportSlow.
  void Expire(const std::string& circumstances, Effects* effects);
  // The deadline of what begins now; zero, which is never, if `timeout` is zero.
  Duration DeadlineAfter(Duration timeout) const {
    return timeout == Duration::zero() ? timeout : clock_.Now() + timeout;
  }
  // When Expire was last called, or this engine made.
  Duration tick() const { return tick_; }

  // A read has failed outside the engine, which did not see it or had finished it.
  void NoteFailedRead() { ++counters_.reads_failed; }

  // Requests: what the journal takes part in.
  Request* FindRequest(MsgId id) { return requests_.Find(id); }
  // The caller has tried to journal it first.  Where that failed, the next daemon makes a new
  // request when the kernel sends the read again.  False when the request has ended meanwhile: its
  // journal record must be erased.
  bool Publish(MsgId id, Effects* effects);

  // The device.
  void Attach(Generation generation);
  // Every instance is closed.  With `fail`, everything pending ends with EIO, and the engine is
  // refusing until a fetcher attaches.
  void Detach(bool fail, Effects* effects);
  // The fetcher has died; another one may go on with its instances.
  void NoteDeath() { is_served_ = false; }
  bool is_attached() const { return is_attached_; }
  // The caller starts no read and no acquisition that would have to wait.
  bool is_refusing() const { return is_refusing_; }
  // With `room` and `failure`: a message that is longer than `room` stays NEW (EMSGSIZE), and an
  // OPEN of an object that is open ends (EEXIST).
  std::optional<Delivery> Select(Effects* effects, size_t room = SIZE_MAX, int* failure = nullptr);
  // Whether a message may be there: a READ of a closed object counts, one whose object is being
  // reopened does not.
  bool IsReadable() const;
  bool notes_uses() const { return options_.notes_uses; }
  // Has the object's uses since the last call kept on disk.
  void KeepUses(Object* object, Effects* effects);
  bool has_kernel_instances() const { return options_.kernel_instances; }
  // What answers the requests, in messages for people.
  std::string Server() const {
    return options_.kernel_instances ? "the program of the cachefiles device" : "the fetcher";
  }
  // An OPEN could not go out.  True: its disk takes no writes, and it is held until it is tried
  // again.
  bool DeliveryFailed(MsgId id, const Status& why, Effects* effects);
  // The request that a copen would complete, or null; for the caller's work before Copen.
  Request* FindOpen(MsgId id);
  int Copen(const wire::CopenCommand& command, Effects* effects);
  // The live instance, or null.
  Object* FindLive(ObjectId id);
  // The blocks that lie wholly in `range` become present, but for those that are being culled.  The
  // caller has tried to record them for
  // this boot first.  Where the store has not taken that record they are present in memory all the
  // same, and the first Sync that can records them.
  void Fill(Object* object, ByteRange range, Effects* effects);
  int Cread(const wire::CreadCommand& command, Effects* effects);
  int CloseInstance(ObjectId id, Effects* effects);
  int SetCause(const wire::CauseCommand& command);
  int SetAttr(const wire::AttrCommand& command, Effects* effects);
  int SetVerity(const wire::VerityCommand& command, Effects* effects);
  int SetFacts(const wire::FactsCommand& command, Effects* effects);
  // The live instance's data file takes no writes: nothing is fetched ahead until it has been
  // filled again.
  int NoteFull(const wire::FullCommand& command, Effects* effects);
  // Whether that READ is waiting, of these very bytes and an object whose data file takes no
  // writes.
  bool AwaitsThrough(const wire::ThroughCommand& command);
  // The READ's bytes are in `bytes`: ends it, for the reads that wait now.  Nothing becomes
  // present.
  int Through(const wire::ThroughCommand& command, std::shared_ptr<const UniqueFd> bytes,
              Effects* effects);
  // The fetcher has found that the origin has another version than the cache, or the same.
  void SetStale(Object* object, bool stale, Effects* effects);
  int Restore(Effects* effects);
  // What was filled since the last sync is on its way to the disk: its ranges, in order.  It stays
  // in memory until FinishSync.
  std::vector<ByteRange> BeginSync(Object* object);
  // What of it may be recorded as durable now: not what was found wrong since, and filled again.
  std::vector<ByteRange> Synced(const Object& object) const;
  void FinishSync(Object* object, bool again);
  // What has been filled and is not known to be durable, in order.
  std::vector<ByteRange> Undurable(const Object& object) const;
  // The blocks of `range` are absent from now on.  The caller has tried to record that first, so
  // that no fill between the two is taken for wrong.  Where it could not be recorded, the caller
  // makes sure that the next daemon does not use the blocks unchecked.
  void RemovePresence(Object* object, ByteRange range);
  // The same; they were found wrong.
  void RemoveWrongPresence(Object* object, ByteRange range);
  // Begins to take `range`, whole blocks, out of the data file: it is absent from now on.  Until
  // EndCull no READ that touches it is delivered, and no fill of it counts.  Slices that were given
  // out before have one of the object's `earlier_files`, and those of later the given `file`.  The
  // caller ends the instance before the bytes go: it may have written some there that it has not
  // declared yet.  False, and nothing changes, where a read waits for bytes of the range or a
  // request covers a part of it.
  bool BeginCull(Object* object, ByteRange range, std::shared_ptr<const UniqueFd> file);
  // Of the range that is being culled: what was present is so again.
  void CancelCull(Object* object, Effects* effects);
  // The bytes are out of the data file.
  void EndCull(Object* object, Effects* effects);
  // Refuses every later command of the fetcher's instance; the object is opened again when it is
  // needed.  With `tell`, which takes an id, the fetcher gets a CLOSE.
  void EndInstance(Object* object, bool tell, Effects* effects);

  const RequestTable& requests() const { return requests_; }
  const std::unordered_map<ObjectNumber, std::unique_ptr<Object>>& objects() const {
    return objects_;
  }
  const EngineCounters& counters() const { return counters_; }
  // Reads that wait and have waited.  O(waiting reads).
  TraceAnswer Trace(const TraceQuestion& question) const;
  ObjectHistory HistoryOf(const Object& object) const;
  Generation generation() const { return generation_; }

  // The device of an earlier life goes on (EngineOptions::kernel_instances): its program has `live`
  // open of the object, and these requests are on its hands.  In place of what it was given:
  // nothing else may have been asked of the object.
  void Resume(Object* object, std::optional<ObjectId> live,
              const std::vector<KeptRequest>& requests, Effects* effects);
  // The same of an instance whose object is gone: it is told to close it.
  void ResumeGone(ObjectNumber number, ObjectId instance, Effects* effects);
  // The requests that had been delivered and have ended since the last call.  Only of
  // `kernel_instances`.
  std::vector<MsgId> TakeEnded() { return std::exchange(ended_, {}); }

  // CHECK-fails on any broken invariant (spec numbers in the .cc).  O(everything); for tests.
  void CheckInvariants() const;

 private:
  void Apply(Object* object, ObjectEvent event);
  void Remove(Object* object, Effects* effects);
  void TellClosed(Object* object, ObjectId instance, Effects* effects);
  void ReportSlow(const std::string& circumstances, Effects* effects);
  std::string KnownCause(const PendingRead& read) const;
  std::string CauseOf(const PendingRead& read, const std::string& circumstances) const;
  bool IsDelivered(const PendingRead& read) const;
  std::string WhyItWaits(const PendingRead& read) const;
  std::string WhyItWaited(const PendingRead& read, const Status& status) const;
  WaitedRead DescribeWait(const PendingRead& read) const;
  void NoteEnded(const PendingRead& read, const Status& status);
  Request* NewRequest(Object* object, wire::Opcode opcode, ByteRange range, Effects* effects);
  void Await(const ReadTicket& read, Effects* effects);
  void AwaitAgain(Object* object, ByteRange range, Effects* effects);
  static std::vector<ByteRange> MissingOf(const PendingRead& read);
  void SplitPartlyFilled(Effects* effects);
  void CoverGap(const ReadTicket& read, ByteRange gap, Effects* effects);
  void AskFor(Object* object, ByteRange wanted, const ReadTicket& read, ByteRange needed,
              Effects* effects);
  void Join(Request* request, const ReadTicket& read);
  void Unqueue(const ReadTicket& read);
  // REQUIRES: `read` is no longer in object->waiting.
  void FinishOrAwait(const ReadTicket& read, Effects* effects);
  const ExpiredRead* FindExpired(Object* object, ByteRange range);
  void Finish(const ReadTicket& read, const Status& status, Effects* effects);
  void EndRequest(Request* request, Effects* effects);
  // `added` is present: moves or finishes the reads that wait there.
  void NotePresent(Object* object, ByteRange added, Effects* effects);
  void FailReadsIn(Object* object, ByteRange range, const Status& status, Effects* effects);
  void FailReads(Object* object, const Status& status, Effects* effects);
  void FinishAcquires(Object* object, const Status& status, Effects* effects);
  void CloseLive(Object* object);
  void Refused(Object* object, int error, const std::string& cause, Effects* effects);

  const EngineOptions options_;
  const Clock& clock_;
  const std::function<MsgId()> take_msg_id_;
  const std::function<ObjectId()> take_object_id_;

  std::unordered_map<ObjectNumber, std::unique_ptr<Object>> objects_;
  std::unordered_map<ObjectId, Object*> live_;
  RequestTable requests_;
  std::multimap<Duration, std::weak_ptr<PendingRead>> deadlines_;
  Duration wake_at_ = Duration::max();  // When an OPEN may be tried again.
  Generation generation_;
  Duration attached_at_{0};  // When a fetcher came last.
  bool is_attached_ = false;
  bool is_served_ = false;  // A process is known to be at the other end.
  bool is_refusing_ = false;
  Duration tick_ = clock_.Now();
  Duration slow_looked_{0};
  uint64_t acquires_ = 0;  // The last serial given.
  std::vector<MsgId> ended_;
  EngineCounters counters_;
  ReadHistory history_;
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_ENGINE_H_
