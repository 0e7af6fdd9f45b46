// ObjectFetcher's transfers: a range of the object, one that is checked, a part of its Merkle tree.
//
// Threads  the event loop's.
// Owns     its transfer and its place among those of its origin.

#ifndef FETCHER_OBJECT_PIECE_H_
#define FETCHER_OBJECT_PIECE_H_

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "fetcher/object_fetcher.h"

namespace fetcher {

// A range being fetched from one origin.
class ObjectFetcher::Piece : public FetchSink {
 public:
  Piece(ObjectFetcher* object, size_t index, ByteRange range)
      : object_(object),
        index_(index),
        range_(range),
        declared_(range.begin),
        slot_(object->origins_[index].origin) {}
  virtual ~Piece() = default;

  void Start(Backend* backend, FetchRequest request) {
    transfer_ = backend->Fetch(std::move(request), this);
  }
  void OnStored(ByteRange range) override;
  void OnEnd(std::optional<Failure> failure) override {
    object_->OnPieceEnd(this, std::move(failure));
  }

  size_t index() const { return index_; }
  // What has not come; empty when all has.
  ByteRange rest() const { return {std::min(declared_, range_.end), range_.end}; }
  bool has_progress() const { return declared_ > range_.begin; }
  virtual bool has_wrong() const { return false; }

 protected:
  ObjectFetcher* const object_;
  const size_t index_;
  const ByteRange range_;
  uint64_t declared_;  // Everything before this has been declared, or was wrong.

 private:
  const TransferSlot slot_;
  std::unique_ptr<Transfer> transfer_;
};

// A range of an object with a digest: each block is checked before it is written, behind the tree
// blocks above it, and declared.
class ObjectFetcher::VerifiedPiece : public Piece {
 public:
  // `tree`: every tree block above `range`.
  VerifiedPiece(ObjectFetcher* object, size_t index, ByteRange range, ObjectTree::Blocks tree)
      : Piece(object, index, range), tree_(std::move(tree)), next_(range.begin) {}

  std::optional<Failure> OnBytes(uint64_t offset, std::span<const char> bytes) override;
  void OnStored(ByteRange) override {}
  bool has_wrong() const override { return has_wrong_; }

 private:
  uint64_t EndOfBlock(uint64_t at) const;
  // Whole blocks from next_ on.
  std::optional<Failure> OnBlocks(std::span<const char> bytes);
  std::optional<Failure> Keep(uint64_t offset, std::span<const char> bytes);
  std::optional<Failure> WriteTree();

  const ObjectTree::Blocks tree_;
  uint64_t next_;      // The first byte that has not been checked.
  std::string carry_;  // What has come of next_'s block.
  bool tree_written_ = false;
  bool has_wrong_ = false;
};

// A part of the Merkle tree, or, while the object is being opened, what its root is computed from.
class ObjectFetcher::TreePiece : public FetchSink {
 public:
  TreePiece(ObjectFetcher* object, size_t index, std::string key, ByteRange range)
      : object_(object),
        index_(index),
        key_(std::move(key)),
        range_(range),
        slot_(object->origins_[index].origin) {}
  virtual ~TreePiece() = default;

  void Start(const ObjectVersion& version) {
    version_ = version;
    transfer_ = object_->origins_[index_].origin->backend->Fetch({key_, range_, version, -1}, this);
  }
  std::optional<Failure> OnBytes(uint64_t, std::span<const char> bytes) override {
    bytes_.append(bytes.data(), bytes.size());
    return std::nullopt;
  }
  void OnStored(ByteRange) override {}
  void OnEnd(std::optional<Failure> failure) override { object_->OnTreeEnd(std::move(failure)); }

  size_t index() const { return index_; }
  const std::string& key() const { return key_; }
  ByteRange range() const { return range_; }
  const ObjectVersion& version() const { return version_; }
  std::span<const char> bytes() const { return bytes_; }
  // Of the object itself, while its root is being checked.
  ObjectVersion object_version;

 private:
  ObjectFetcher* const object_;
  const size_t index_;
  const std::string key_;
  const ByteRange range_;
  const TransferSlot slot_;
  ObjectVersion version_;
  std::string bytes_;
  std::unique_ptr<Transfer> transfer_;
};

// Writes all of it at `offset` of a data file.
std::optional<Failure> WriteToDataFile(int fd, uint64_t offset, std::span<const char> bytes);

}  // namespace fetcher

#endif  // FETCHER_OBJECT_PIECE_H_
