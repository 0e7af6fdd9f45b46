// Engine: objects, their pending requests and the reads that wait on them, as a pure state machine.
//
// Model    a read of absent bytes waits at its first missing byte; every missing byte somebody
// waits
//          for is covered by exactly one READ request of its object (requests of one object never
//          overlap).  Filled bytes move or finish the reads that wait there; a request that ends
//          without them fails the reads that wait inside it, or asks again if it made progress.
//          Each read ends exactly once.  What has to happen outside (journal, replies, wake-ups) is
//          collected in Effects and carried out by the caller after it has let go of its lock.
// Units    bytes from the start of an object; times by Clock::Now().
// Errors   answers to the device are errnos (0 or negative, as the kernel's writes give them);
// broken
//          invariants CHECK-fail.
// Threads  thread-compatible; guarded by Cache::mu_.  No I/O; callbacks only leave inside Effects.
// Owns     objects and requests.  A ReadTicket keeps its read's memory, not its place in line.
// Cost     O(log n) per request, read or fill, plus the reads that a fill touches.
// Crash    memory only.  Cache rebuilds it from the metadata store.
// See      docs/semantics.md; docs/design.md "Life of a read"; engine_test.cc (model test).

#ifndef CACHECORE_ENGINE_H_
#define CACHECORE_ENGINE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cachecore/clock.h"
#include "cachecore/object.h"
#include "cachecore/request_table.h"
#include "cachecore/status.h"
#include "cachecore/wire.h"

namespace cachecore {

// What the caller must do once it holds no lock, in this order.
struct Effects {
  struct Forgotten {
    ObjectNumber number;
    ObjectNumber volume;
    std::string cookie_key;
  };
  std::vector<MsgId> created;  // Journal them, then Publish.
  std::vector<MsgId> ended;    // Their journal records go.
  std::vector<std::pair<ReadDone, Status>> reads;
  std::vector<std::pair<AcquireDone, Status>> acquires;
  std::vector<ObjectNumber> changed;  // Their records must be written again.
  std::vector<Forgotten> forgotten;   // Left memory; their names go too.
  std::vector<std::string> log;       // Sentences for the operator, each once.
  bool wake_device = false;           // A message may be deliverable now.
};

struct EngineOptions {
  uint64_t fetch_size = 64 << 10;      // Smallest fetch, and its alignment; a power of two.
  uint64_t max_fetch = 4 << 20;        // Largest READ.
  uint64_t read_ahead_max = 32 << 20;  // 0 switches read-ahead off.
  bool exact = false;                  // READs are the kernel's: the very hole, at most 2 MiB.
  uint32_t max_refusals = 3;           // Refused reopens in a row before an object's reads fail.
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
  uint64_t bytes_in_flight_at_detach =
      0;  // READs a fetcher had unanswered when it left, summed up.
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
  // Lets it go from memory, what is known of it being on disk: tells the fetcher with CLOSE.
  // REQUIRES: IsIdle.
  void Evict(Object* object, Effects* effects);
  // Ends what is asked for with nobody waiting.  REQUIRES: no read and no acquisition waits.  The
  // object is gone then, if nothing was known of it.
  void EndBackground(Object* object, Effects* effects);

  // Asks the fetcher for an object that nothing is known of; joins an OPEN already on its way.
  // Returns the serial that withdraws it.
  uint64_t Acquire(Object* object, Duration deadline, AcquireDone done, Effects* effects);

  // Ends an acquisition early.  False when it has ended already.
  bool WithdrawAcquire(ObjectNumber number, uint64_t serial, const Status& why, Effects* effects);

  // Waits for `range`, which lies inside the object and is not all present.  `deadline` zero is
  // never.
  ReadTicket Read(Object* object, ByteRange range, Duration deadline, ReadDone done,
                  Effects* effects, pid_t caller = 0);
  // Notes that `range` is being read, present or not, and asks ahead for a sequential reader.
  void NoteRead(Object* object, ByteRange range, Effects* effects);
  // Asks for `range` with nobody waiting (a request of an earlier life).
  void Prefetch(Object* object, ByteRange range, Effects* effects);
  // Ends a read early.  False when it has ended already.
  bool Withdraw(const ReadTicket& read, const Status& why, Effects* effects);
  // Ends every read and acquisition whose deadline has come.
  // `circumstances` is the cause given where the fetcher has named none.
  // Once a second also logs what has waited for long: see ReportSlow.
  void Expire(const std::string& circumstances, Effects* effects);
  // When Expire was last called.
  Duration tick() const { return tick_; }

  // A read has failed that this engine has not seen, or had finished.
  void NoteFailedRead() { ++counters_.reads_failed; }

  // Requests: the journal's part of their life.
  Request* FindRequest(MsgId id) { return requests_.Find(id); }
  // REQUIRES: journaled.  False when the request has ended meanwhile: its record must go again.
  bool Publish(MsgId id, Effects* effects);

  // The device.
  void Attach(Generation generation) { generation_ = generation; }
  // Every instance is closed.  With `fail`, everything pending ends with EIO.
  void Detach(bool fail, Effects* effects);
  std::optional<Delivery> Select(Effects* effects);
  // An OPEN could not go out.  On a disk that takes no writes it is tried again.
  void DeliveryFailed(MsgId id, const Status& why, Effects* effects);
  // The request that a copen would complete, or null; for the caller's work before Copen.
  Request* FindOpen(MsgId id);
  int Copen(const wire::CopenCommand& command, Effects* effects);
  // The live instance, or null.
  Object* FindLive(ObjectId id);
  // The blocks of `range` that a fill of `object` makes present (inward, clipped).
  // REQUIRES: the presence has been recorded.
  void Fill(Object* object, ByteRange range, Effects* effects);
  int Cread(const wire::CreadCommand& command, Effects* effects);
  int CloseInstance(ObjectId id, Effects* effects);
  int SetCause(const wire::CauseCommand& command);
  int SetAttr(const wire::AttrCommand& command, Effects* effects);
  int SetVerity(const wire::VerityCommand& command, Effects* effects);
  int Restore(Effects* effects);
  // The blocks of `range` were found wrong: they are absent from now on.  REQUIRES: recorded.
  void Unfill(Object* object, ByteRange range);

  const RequestTable& requests() const { return requests_; }
  const std::unordered_map<ObjectNumber, std::unique_ptr<Object>>& objects() const {
    return objects_;
  }
  const EngineCounters& counters() const { return counters_; }
  Generation generation() const { return generation_; }

  // CHECK-fails on any broken invariant (spec numbers in the .cc).  O(everything); for tests.
  void CheckInvariants() const;

 private:
  void Apply(Object* object, ObjectEvent event);
  void Remove(Object* object, Effects* effects);
  void ReportSlow(const std::string& circumstances, Effects* effects);
  std::string CauseOf(const PendingRead& read, const std::string& circumstances);
  Request* NewRequest(Object* object, wire::Opcode opcode, ByteRange range, Effects* effects);
  void Await(const ReadTicket& read, Effects* effects);
  void AwaitAgain(Object* object, ByteRange range, Effects* effects);
  void SplitPartlyFilled(Effects* effects);
  void CoverGap(const ReadTicket& read, ByteRange gap, Effects* effects);
  void AskFor(Object* object, ByteRange wanted, const ReadTicket& read, ByteRange needed,
              Effects* effects);
  void Join(Request* request, const ReadTicket& read);
  void Unqueue(const ReadTicket& read);
  const ExpiredRead* FindExpired(Object* object, ByteRange range);
  void Finish(const ReadTicket& read, const Status& status, Effects* effects);
  void EndRequest(Request* request, Effects* effects);
  void FailReadsIn(Object* object, ByteRange range, const Status& status, Effects* effects);
  void FailReads(Object* object, const Status& status, Effects* effects);
  void FinishAcquires(Object* object, const Status& status, Effects* effects);
  void CloseLive(Object* object);
  void MarkStale(Object* object, Effects* effects);
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
  Duration tick_{0};
  Duration slow_looked_{0};
  uint64_t acquires_ = 0;  // The last serial given.
  EngineCounters counters_;
};

}  // namespace cachecore

#endif  // CACHECORE_ENGINE_H_
