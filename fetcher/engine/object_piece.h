// The transfers of an object: a range of it, one that is checked, a part of its Merkle tree.
//
// Model    bytes go into the data file, or into a file of the READ that they are brought through
//          to.  The PieceOwner is told what has come, block by block.
// Errors   Failure, at the end.
// Threads  the event loop's.
// Owns     its transfer and its place among those of its origin.
// Crash    a block counts from its declaration on; what was written before is written again.

#ifndef FETCHER_ENGINE_OBJECT_PIECE_H_
#define FETCHER_ENGINE_OBJECT_PIECE_H_

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "cachecore/base/clock.h"
#include "fetcher/engine/object_tree.h"
#include "fetcher/origins/source_table.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class Piece;

// Gets the progress and the end of pieces.
class PieceOwner {
 public:
  // These bytes are in the data file.
  virtual void OnArrived(ByteRange range) = 0;
  // The piece's origin had that block wrong.
  virtual void OnWrongBlock(size_t index, ByteRange block) = 0;
  // May destroy the piece.
  virtual void OnPieceEnd(Piece* piece, std::optional<Failure> failure) = 0;

 protected:
  ~PieceOwner() = default;
};

// Gets the end of a part of the tree.
class TreeOwner {
 public:
  // It has come, or will not.  May destroy the piece.
  virtual void OnTreeEnd(std::optional<Failure> failure) = 0;

 protected:
  ~TreeOwner() = default;
};

// A range being fetched from one origin.
class Piece : public FetchSink {
 public:
  // Where the bytes go.
  struct Target {
    int fd;
    bool is_through;  // It is not the data file.
  };
  // `index` is that of the origin.  The owner and the clock outlive this.
  Piece(PieceOwner* owner, const cachecore::Clock& clock, size_t index,
        const std::shared_ptr<Origin>& origin, ByteRange range, Target target)
      : owner_(owner),
        index_(index),
        range_(range),
        declared_(range.begin),
        target_(target),
        clock_(clock),
        backend_(origin->backend.get()),
        slot_(origin) {}
  virtual ~Piece() = default;

  // Brings the range of `version`, by a new connection if `afresh` is set.
  virtual void Start(const std::string& key, const ObjectVersion& version, bool afresh) {
    StartTransfer({key, range_, version, target_.fd, afresh});
  }
  void OnStored(ByteRange range) override;
  void OnEnd(std::optional<Failure> failure) override {
    owner_->OnPieceEnd(this, std::move(failure));
  }

  size_t index() const { return index_; }
  // What has not come; empty when all has.
  ByteRange rest() const { return {std::min(declared_, range_.end), range_.end}; }
  bool has_progress() const { return declared_ > range_.begin; }
  virtual bool has_wrong() const { return false; }
  bool is_through() const { return target_.is_through; }

 protected:
  // These bytes are in the file.
  void Declare(ByteRange range);
  void StartTransfer(FetchRequest request) {
    transfer_ = backend_->Fetch(std::move(request), this);
  }
  int file() const { return target_.fd; }

  PieceOwner* const owner_;
  const size_t index_;
  const ByteRange range_;
  uint64_t declared_;  // Everything before this has been declared, or was wrong.

 private:
  const Target target_;
  const cachecore::Clock& clock_;
  Backend* const backend_;
  const TransferSlot slot_;
  std::unique_ptr<Transfer> transfer_;
};

// A range of an object with a digest: each block is checked before it is written, behind the tree
// blocks above it, and declared.
class VerifiedPiece : public Piece {
 public:
  // `paths`: every block of `tree`, which outlives this, above `range`, which is whole blocks.
  VerifiedPiece(PieceOwner* owner, const cachecore::Clock& clock, size_t index,
                const std::shared_ptr<Origin>& origin, ByteRange range, Target target,
                ObjectTree* tree, ObjectTree::Blocks paths)
      : Piece(owner, clock, index, origin, range, target),
        tree_(tree),
        paths_(std::move(paths)),
        next_(range.begin) {}

  void Start(const std::string& key, const ObjectVersion& version, bool afresh) override {
    size_bytes_ = version.size_bytes;
    StartTransfer({key, range_, version, -1, afresh});
  }
  std::optional<Failure> OnBytes(uint64_t offset, std::span<const char> bytes) override;
  void OnStored(ByteRange) override {}
  bool has_wrong() const override { return has_wrong_; }

 private:
  uint64_t EndOfBlock(uint64_t at) const;
  // Whole blocks from next_ on.
  std::optional<Failure> OnBlocks(std::span<const char> bytes);
  std::optional<Failure> Keep(uint64_t offset, std::span<const char> bytes);
  std::optional<Failure> WriteTree();

  ObjectTree* const tree_;
  const ObjectTree::Blocks paths_;
  uint64_t size_bytes_ = 0;  // Of the object.
  uint64_t next_;            // The first byte that has not been checked.
  std::string carry_;        // What has come of next_'s block.
  bool tree_written_ = false;
  bool has_wrong_ = false;
};

// A part of the Merkle tree, or, while the object is being opened, what its root is computed from.
class TreePiece : public FetchSink {
 public:
  TreePiece(TreeOwner* owner, size_t index, const std::shared_ptr<Origin>& origin, std::string key,
            ByteRange range)
      : owner_(owner),
        index_(index),
        key_(std::move(key)),
        range_(range),
        backend_(origin->backend.get()),
        slot_(origin) {}
  virtual ~TreePiece() = default;

  void Start(const ObjectVersion& version) {
    version_ = version;
    transfer_ = backend_->Fetch({key_, range_, version, -1}, this);
  }
  std::optional<Failure> OnBytes(uint64_t, std::span<const char> bytes) override {
    bytes_.append(bytes.data(), bytes.size());
    return std::nullopt;
  }
  void OnStored(ByteRange) override {}
  void OnEnd(std::optional<Failure> failure) override { owner_->OnTreeEnd(std::move(failure)); }

  // What a failure of this piece means for the object whose tree is at `merkle_key`.
  Failure Explain(Failure failure, const std::string& merkle_key) const;

  size_t index() const { return index_; }
  ByteRange range() const { return range_; }
  std::span<const char> bytes() const { return bytes_; }
  // Of the object itself, while its root is being checked.
  ObjectVersion object_version;

 private:
  TreeOwner* const owner_;
  const size_t index_;
  const std::string key_;
  const ByteRange range_;
  Backend* const backend_;
  const TransferSlot slot_;
  ObjectVersion version_;
  std::string bytes_;
  std::unique_ptr<Transfer> transfer_;
};

// Writes all of it at `offset` of a data file.
std::optional<Failure> WriteToDataFile(int fd, uint64_t offset, std::span<const char> bytes);

}  // namespace fetcher

#endif  // FETCHER_ENGINE_OBJECT_PIECE_H_
