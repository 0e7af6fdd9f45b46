// ObjectFetcher: one open object from its OPEN to its CLOSE: which origin, which bytes, what next.
//
// Model    opening: the size is asked of one origin after the other, unless the object's attr tells
//          it.  Open: READs wait in a FetchQueue; pieces of it are fetched from the origin that has
//          failed least, the first of the list among equals.  An origin is pinned (size and
//          validator, kept in the object's attr) before a byte of it is declared.  A READ ends when
//          all its bytes have been declared; when every origin has refused the object since it
//          came; or when its budget has run out.  That the object has changed is believed when an
//          origin has said the same three times over some seconds, by new connections, and never
//          of an object that is named by a digest.
// Errors   to the daemon, each with a cause: copen with the origin's errno; cread ESTALE if the
// object
//          changed, the data file's errno if that cannot be written, EIO otherwise.
// Threads  the event loop's.
// Owns     the object's data fd and its transfers; shares its origins.
// See      docs/protocol.md "What the fetcher does with an origin's answer".

#ifndef FETCHER_OBJECT_FETCHER_H_
#define FETCHER_OBJECT_FETCHER_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "cachecore/clock.h"
#include "cachecore/tree_cache.h"
#include "cachecore/verity_tree.h"
#include "fetcher/backend.h"
#include "fetcher/client.h"
#include "fetcher/fetch_queue.h"
#include "fetcher/object_attr.h"
#include "fetcher/object_tree.h"
#include "fetcher/retry_policy.h"
#include "fetcher/source_table.h"

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
  // Asks for OnTimer of this object at that time.
  std::function<void(ObjectId, Duration)> wake_at;
  // Whether the volume's source is another one than the one of this stamp.
  std::function<bool(const std::string& volume, const std::string& stamp)> source_changed;
  uint64_t declared_bytes = 0;  // Since the last flush.
  size_t without_room = 0;  // Objects whose data file cannot grow.
};

class ObjectFetcher {
 public:
  // Begins to open, or answers at once.  `order` is its place in line; `context` outlives this.
  ObjectFetcher(FetchContext* context, OpenRequest open, Source source, uint64_t order);
  ~ObjectFetcher();
  ObjectFetcher(const ObjectFetcher&) = delete;
  ObjectFetcher& operator=(const ObjectFetcher&) = delete;

  void AddRead(MsgId id, ByteRange range, uint64_t order);
  // The daemon does not know this READ any more.
  void ForgetRead(MsgId id);
  void OnTimer();

  // The place in line of what could be started if an origin were free; nullopt for nothing.
  std::optional<uint64_t> NextOrder() const;
  // Starts one transfer.  False if no origin can take one now.  `alone`: nobody else wants any.
  bool StartOne(bool alone);
  // Nothing to do until the next READ.
  bool idle() const { return open_ && queue_.empty(); }
  bool IsOpenedBy(MsgId open) const { return open_id_ == open; }
  // The OPEN was refused, and has been answered so, or the instance was given up: the object is to
  // be forgotten.
  bool failed() const { return failed_; }

 private:
  // That an origin has said to have another version.
  struct Doubt {
    static constexpr int kEnough = 3;
    std::string cause;
    Duration first;
    Duration last;
    int times = 1;
  };
  struct OriginState {
    explicit OriginState(RetryPolicy retries) : policy(retries) {}
    std::shared_ptr<Origin> origin;
    RetryPolicy policy;
    Duration retry_at = Duration::zero();
    std::optional<Failure> failure;      // The last one, until it serves again.
    // Refused or changed: not asked for what was in line by then.
    std::optional<uint64_t> out_through;
    std::optional<Doubt> doubt;  // Until it serves the pinned version again.
    std::unique_ptr<TransferSlot> slot;  // While probing.
    std::unique_ptr<Transfer> probe;
  };
  // A READ, or the OPEN, that has met a failure.
  struct Trouble {
    RetryBudget budget;
    std::string cause;  // What the daemon was told last.
    Duration told_at = Duration::zero();
  };
  class Piece;
  class VerifiedPiece;
  class TreePiece;
  using OriginMask = uint32_t;  // A bit for each of origins_, of which there are 16 at most.

  // Tells the daemon that the object is open.
  void Opened();

  void StartProbe(size_t index);
  void OnProbed(size_t index, ProbeResult result);
  // Pins an origin.  A failure when it cannot be.
  std::optional<Failure> PinOrigin(size_t index, const ObjectVersion& version);
  bool IsPinned(size_t index) const;

  void StartPiece(size_t index, bool alone);
  void Declare(ByteRange range);
  void OnPieceEnd(Piece* piece, std::optional<Failure> failure);
  // The data file's disk is full: what waits goes on waiting, and is told why.
  void AwaitRoom(const Failure& failure);
  // Whether there is room again, which is tried now.
  bool FindsRoom();
  void TellNoRoom(MsgId id);

  // Notes a failure of an origin, and when to try it again; tells those who wait.
  void OnFailure(size_t index, Failure failure);
  // Fails what waits and has been refused by every origin.
  void GiveUp();
  // The last in line of those that every origin is out for; nullopt for nobody.
  std::optional<uint64_t> RefusedThrough() const;
  // What to make of an answer that says that the object has changed.
  Failure JudgeChange(OriginState* state, Failure failure);
  void Served(OriginState* state);
  // Gives the instance up, so that what waits comes again with an OPEN.
  void Reopen();
  // Its bytes are known by a digest, so that nothing an origin says can make it another object.
  bool IsNamedByDigest() const;
  ObjectVersion VersionAt(const OriginState& state) const;
  Trouble& TroubleOf(MsgId id);
  void TellTrouble(MsgId id, Trouble* trouble, const Failure& failure);
  void FailRead(MsgId id, const Failure& failure);
  void FailOpen(const Failure& failure);
  void FailExhausted();
  // REQUIRES: an origin has failed.
  const Failure& WorstFailure() const;
  // The origin to use now for what is at `order` in line, or nullopt.
  std::optional<size_t> PickOrigin(OriginMask without, uint64_t order) const;

  // object_fetcher_verity.cc
  bool StartVerified(bool alone);
  bool StartTree(uint64_t tree_block);
  // Asks for the tree above `begin`, if it is not here, before data is wanted there.
  void StartTreeAhead(uint64_t begin);
  void StartVerifiedPiece(size_t index, ByteRange range);
  void StartRootCheck(size_t index, const ObjectVersion& version);
  void OnRootFetched(size_t index, const ObjectVersion& version, std::span<const char> bytes);
  void OnTreeEnd(std::optional<Failure> failure);
  // The end of the run from `begin` on that one piece may fetch: its tree is here, and the same
  // origins have had it wrong, `without`.
  uint64_t EndOfRun(uint64_t begin, OriginMask* without) const;
  void OnWrongBlock(size_t index, ByteRange block);
  // No origin can give `range`: what waits for it fails, unless it can go on with other bytes.
  void Lose(ByteRange range, const std::string& why);
  void FailHopeless();
  // Those that are not asked for the next in line.
  OriginMask OutMask() const;
  std::string OriginsOf(OriginMask mask, const std::string& key) const;

  FetchContext* const context_;
  const ObjectId id_;
  const MsgId open_id_;
  const uint64_t open_order_;
  const std::string volume_;
  const std::string key_;
  const std::string source_stamp_;
  const UniqueFd data_fd_;
  std::vector<OriginState> origins_;
  bool open_ = false;
  bool failed_ = false;
  uint64_t last_order_;  // Of the READs that have come.
  ObjectAttr attr_;
  FetchQueue queue_;
  Trouble open_trouble_;
  std::map<MsgId, Trouble> troubles_;
  std::list<std::unique_ptr<Piece>> pieces_;
  std::optional<Failure> no_room_;  // Nothing is fetched before room_at_, then if there is room.
  Duration room_at_ = Duration::zero();

  std::optional<cachecore::Digest> verity_;
  std::string merkle_key_;
  std::optional<ObjectTree> tree_;  // Once it is open, if it has a digest.
  std::unique_ptr<TreePiece> tree_piece_;
  ByteRange last_tree_chunk_;
  std::map<uint64_t, OriginMask> wrong_blocks_;       // By data block: who has had it wrong.
  std::map<uint64_t, OriginMask> wrong_tree_blocks_;  // The same for the tree.
  std::string lost_why_;
};

}  // namespace fetcher

#endif  // FETCHER_OBJECT_FETCHER_H_
