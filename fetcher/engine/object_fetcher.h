// ObjectFetcher: one open object from its OPEN to its CLOSE: which origin, which bytes, what next.
//
// Model    a front over its parts: ObjectOpening asks origins for the version, OriginSet chooses
//          the one to ask, FetchQueue the range, VerifiedStrategy both for an object with a digest,
//          and ReadTroubles knows how long each request may go on.  They do not know each other's
//          callers: what happens comes back by OpeningOwner, PieceOwner and TreeOwner.  A READ ends
//          when all its bytes have been declared; when every origin has refused the object since it
//          came; or when its budget has run out.
// Errors   to the daemon, each with a cause: copen with the origin's errno; cread ESTALE if the
//          object changed, the data file's errno if that cannot be written, EIO otherwise.
// Threads  the event loop's.
// Owns     the object's data fd and its transfers; shares its origins.
// See      docs/protocol.md "What the fetcher does with an origin's answer".

#ifndef FETCHER_ENGINE_OBJECT_FETCHER_H_
#define FETCHER_ENGINE_OBJECT_FETCHER_H_

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "fetcher/client/client.h"
#include "fetcher/engine/fetch_context.h"
#include "fetcher/engine/fetch_queue.h"
#include "fetcher/engine/object_identity.h"
#include "fetcher/engine/object_opening.h"
#include "fetcher/engine/object_piece.h"
#include "fetcher/engine/object_tree.h"
#include "fetcher/engine/origin_set.h"
#include "fetcher/engine/read_troubles.h"
#include "fetcher/engine/verified_strategy.h"
#include "fetcher/origins/source_table.h"
#include "fetcher/room/data_room.h"
#include "fetcher/room/through_read.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class ObjectFetcher final : public PieceOwner, public TreeOwner, public OpeningOwner {
 public:
  // Begins to open, or answers at once.  `order` is its place in line; `context` outlives this.
  ObjectFetcher(FetchContext* context, OpenRequest open, Source source, uint64_t order);
  ~ObjectFetcher();
  ObjectFetcher(const ObjectFetcher&) = delete;
  ObjectFetcher& operator=(const ObjectFetcher&) = delete;

  // As of FetchQueue::Add.
  void AddRead(MsgId id, ByteRange range, uint64_t order, uint64_t came);
  // The daemon has ended this READ.
  void ForgetRead(MsgId id);
  void OnTimer();
  // The daemon did not take what was brought through for this READ.
  void ThroughRefused(MsgId id, ByteRange range, uint64_t order);

  // The place in line of what could be started if an origin were free; nullopt for nothing.
  std::optional<uint64_t> NextOrder() const;
  // Starts one transfer.  False if no origin can take one now.  `alone`: no other object wants any.
  bool StartOne(bool alone);
  // Nothing to do until the next READ.
  bool idle() const { return open_ && queue_.empty(); }
  bool IsOpenedBy(MsgId open) const { return open_id_ == open; }
  // The OPEN was answered with an error, or the instance was closed: the caller removes the object.
  bool failed() const { return failed_; }

 private:
  // Tells the daemon that the object is open.
  void Opened();

  // OpeningOwner:
  void OnOriginServes(size_t index) override;
  // Notes a failure of an origin, and when to try it again; reports it for each request that waits.
  void OnOriginFails(size_t index, Failure failure) override;
  void OnVerified(size_t index, ObjectTree tree) override;
  bool IsPinned(size_t index) const { return identity_.IsPinned(NameOf(index)); }

  // What to do for the head of the line.  REQUIRES: it is open, and NextOrder().
  FetchStep NextStep() const;
  // What the next transfer brings; `alone`: no other object wants anything.
  ByteRange TakePiece(const Origin& origin, uint64_t max_bytes, bool alone);
  // `through`: a file to bring the bytes into instead of the data file, or -1.
  void StartPiece(size_t index, ByteRange range, int through);
  // PieceOwner, TreeOwner:
  void OnArrived(ByteRange range) override;
  void OnWrongBlock(size_t index, ByteRange block) override;
  void OnPieceEnd(Piece* piece, std::optional<Failure> failure) override;
  void OnTreeEnd(std::optional<Failure> failure) override;

  // Fails the requests that every origin has refused.
  void FailRefused();
  // Closes the instance, so that the READs come again after an OPEN.
  void CloseInstance();
  const std::string& NameOf(size_t index) const { return origins_.at(index)->name; }
  void NoteServed(size_t index);
  // A request has met a failure.
  void MeetTrouble(ReadTroubles* troubles, MsgId id, const Failure& failure);
  void FailRead(MsgId id, const Failure& failure);
  void FailOpen(const Failure& failure);
  void FailExhausted();
  // When the head of the line came, by which origins are out for it.
  uint64_t NextCame() const;
  // The origin to use now for the head of the line, or nullopt.
  std::optional<size_t> PickOrigin(OriginMask without) const;

  // object_fetcher_room.cc

  // The data file's disk is full, at `begin` of the object: the READs go on waiting, or are brought
  // through.  The daemon is told why.
  void AwaitRoom(const Failure& failure, uint64_t begin);
  // Whether there may be room again, which is tried now.
  bool FindsRoom();
  void TellNoRoom(MsgId id);
  bool MayGoThrough() const;
  // Starts what the READ at the head of the line takes to be brought through.
  bool StartThrough();
  void PauseThrough();
  void OnThroughEnd(const Piece& ended, std::optional<Failure> failure);
  void SendThrough();

  // object_fetcher_verity.cc
  // Bytes are checked against this tree from now on.
  void Verify(ObjectTree tree);
  bool StartTree(const FetchStep& step);
  // Requests the tree above `begin`, if it is not here, before data is wanted there.
  void StartTreeAhead(uint64_t begin);
  // Whether one origin may have all that `range` takes, but those of *without; fetches its tree, or
  // fails the READ, otherwise.
  bool IsVerifiable(MsgId read, ByteRange range, OriginMask* without);
  // No origin can give this step's data: fails the READs that need nothing else.
  void Lose(const FetchStep& step);
  void FailHopeless();
  // The origins that are not asked for the next in line.
  OriginMask OutMask() const;

  FetchContext* const context_;
  const ObjectId id_;
  const MsgId open_id_;
  const uint64_t open_order_;
  const std::string volume_;
  const std::string key_;
  const std::string source_stamp_;
  const UniqueFd data_fd_;
  OriginSet origins_;
  bool open_ = false;
  bool failed_ = false;
  uint64_t last_came_;  // Of the READs.
  const std::string merkle_key_;
  ObjectIdentity identity_;
  ObjectOpening opening_;
  FetchQueue queue_;
  std::unique_ptr<ReadTroubles> open_troubles_;  // Of the OPEN alone.
  ReadTroubles troubles_;
  std::optional<VerifiedStrategy> verified_;  // Once it is open, if it has a digest.
  std::list<std::unique_ptr<Piece>> pieces_;
  std::unique_ptr<TreePiece> tree_piece_;
  DataRoom room_;
  ThroughRead through_;
  std::string lost_why_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_OBJECT_FETCHER_H_
