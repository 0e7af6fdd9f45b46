#include "fetcher/engine/object_piece.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cachecore/base/fault_point.h"
#include "fetcher/engine/fetch_queue.h"
#include "fetcher/transfer/data_file.h"

namespace fetcher {

using cachecore::kVerityBlock;

std::optional<Failure> WriteToDataFile(int fd, uint64_t offset, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      return DataFileFailure(fd, done < 0 ? errno : ENOSPC);
    }
    offset += static_cast<uint64_t>(done);
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return std::nullopt;
}

void Piece::OnStored(ByteRange range) {
  // Only whole blocks count; a partial one is fetched again if the rest does not come.
  uint64_t end = range.end;
  if (end < range_.end) end -= end % FetchQueue::kBlock;
  if (end <= declared_) return;
  Declare({declared_, end});
}

void Piece::Declare(ByteRange range) {
  slot_.Brought(range.size(), clock_.Now());
  declared_ = range.end;
  if (!is_through()) owner_->OnArrived(range);
}

uint64_t VerifiedPiece::EndOfBlock(uint64_t at) const {
  return std::min(at - at % kVerityBlock + kVerityBlock, size_bytes_);
}

// What comes is cut anywhere; only whole blocks can be checked.
std::optional<Failure> VerifiedPiece::OnBytes(uint64_t, std::span<const char> bytes) {
  if (!carry_.empty()) {
    const size_t lacking = EndOfBlock(next_) - next_ - carry_.size();
    const std::span<const char> part = bytes.subspan(0, std::min(lacking, bytes.size()));
    carry_.append(part.data(), part.size());
    bytes = bytes.subspan(part.size());
    if (part.size() < lacking) return std::nullopt;
    const std::string block = std::exchange(carry_, {});
    if (auto failure = OnBlocks(block)) return failure;
  }
  const uint64_t end = next_ + bytes.size();
  const uint64_t whole = end == size_bytes_ ? end : end - end % kVerityBlock;
  if (whole > next_) {
    const size_t count = whole - next_;
    if (auto failure = OnBlocks(bytes.subspan(0, count))) return failure;
    bytes = bytes.subspan(count);
  }
  carry_.assign(bytes.data(), bytes.size());
  return std::nullopt;
}

std::optional<Failure> VerifiedPiece::OnBlocks(std::span<const char> bytes) {
  const std::span<const cachecore::Digest> hashes = tree_->HashesOf(bytes);
  const uint64_t begin = next_;
  uint64_t kept = begin;  // Of the run of right blocks, the first byte.
  const auto keep_run = [&](uint64_t end) -> std::optional<Failure> {
    if (end == kept) return std::nullopt;
    return Keep(kept, bytes.subspan(kept - begin, end - kept));
  };
  while (next_ < begin + bytes.size()) {
    const ByteRange block{next_, EndOfBlock(next_)};
    const uint64_t number = block.begin / kVerityBlock;
    const TreeBlock* leaf = nullptr;
    if (tree_->layout().has_tree()) leaf = paths_.at(tree_->layout().LeafOf(number)).get();
    const bool right = tree_->IsRight(number, leaf, hashes[(block.begin - begin) / kVerityBlock]);
    next_ = block.end;
    if (right) continue;
    if (auto failure = keep_run(block.begin)) return failure;
    has_wrong_ = true;
    declared_ = kept = block.end;
    owner_->OnWrongBlock(index_, block);
  }
  return keep_run(next_);
}

std::optional<Failure> VerifiedPiece::Keep(uint64_t offset, std::span<const char> bytes) {
  if (!tree_written_) {
    if (auto failure = WriteTree()) return failure;
    tree_written_ = true;
  }
  if (auto failure = WriteToDataFile(file(), offset, bytes)) return failure;
  cachecore::FaultPoint(cachecore::Fault::kBytesStored);
  const ByteRange range = ByteRange::At(offset, bytes.size());
  Declare(range);
  return std::nullopt;
}

// Each time, though they may be there: the daemon also has bytes fetched again because one of these
// tree blocks is damaged on its disk.
std::optional<Failure> VerifiedPiece::WriteTree() {
  const uint64_t tail = tree_->layout().tail_offset();
  for (const auto& [number, block] : paths_) {
    const auto* data = reinterpret_cast<const char*>(block->data());
    auto failure = WriteToDataFile(file(), tail + number * kVerityBlock, {data, block->size()});
    if (failure) return failure;
  }
  if (!paths_.empty()) cachecore::FaultPoint(cachecore::Fault::kTreeStored);
  return std::nullopt;
}

Failure TreePiece::Explain(Failure failure, const std::string& merkle_key) const {
  if (failure.kind == Failure::Kind::kChanged && version_.pin.kind.empty()) {
    failure.kind = Failure::Kind::kRefused;
    failure.cause =
        backend_->Describe(merkle_key) + ": is not of the size that the object's Merkle tree has";
  }
  // The object is there: its tree is what is not.
  if (failure.error == ENOENT && key_ == merkle_key) {
    failure.error = EBADMSG;
    failure.cause += " (the object's Merkle tree)";
  }
  return failure;
}

}  // namespace fetcher
