#include "fetcher/object_piece.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cachecore/fault_point.h"
#include "fetcher/data_file.h"

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

void ObjectFetcher::Piece::OnStored(ByteRange range) {
  // Only whole blocks count; a partial one is fetched again if the rest does not come.
  uint64_t end = range.end;
  if (end < range_.end) end -= end % FetchQueue::kBlock;
  if (end <= declared_) return;
  object_->Declare({std::exchange(declared_, end), end});
}

uint64_t ObjectFetcher::VerifiedPiece::EndOfBlock(uint64_t at) const {
  return std::min(at - at % kVerityBlock + kVerityBlock, object_->attr_.size_bytes);
}

// What comes is cut anywhere; only whole blocks can be checked.
std::optional<Failure> ObjectFetcher::VerifiedPiece::OnBytes(uint64_t,
                                                             std::span<const char> bytes) {
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
  const uint64_t whole = end == object_->attr_.size_bytes ? end : end - end % kVerityBlock;
  if (whole > next_) {
    const size_t count = whole - next_;
    if (auto failure = OnBlocks(bytes.subspan(0, count))) return failure;
    bytes = bytes.subspan(count);
  }
  carry_.assign(bytes.data(), bytes.size());
  return std::nullopt;
}

std::optional<Failure> ObjectFetcher::VerifiedPiece::OnBlocks(std::span<const char> bytes) {
  ObjectTree& tree = *object_->tree_;
  const std::span<const cachecore::Digest> hashes = tree.HashesOf(bytes);
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
    if (tree.layout().has_tree()) leaf = tree_.at(tree.layout().LeafOf(number)).get();
    const bool right = tree.IsRight(number, leaf, hashes[(block.begin - begin) / kVerityBlock]);
    next_ = block.end;
    if (right) continue;
    if (auto failure = keep_run(block.begin)) return failure;
    has_wrong_ = true;
    declared_ = kept = block.end;
    object_->OnWrongBlock(index_, block);
  }
  return keep_run(next_);
}

std::optional<Failure> ObjectFetcher::VerifiedPiece::Keep(uint64_t offset,
                                                          std::span<const char> bytes) {
  if (!tree_written_) {
    if (auto failure = WriteTree()) return failure;
    tree_written_ = true;
  }
  if (auto failure = WriteToDataFile(object_->data_fd_.get(), offset, bytes)) return failure;
  cachecore::FaultPoint(cachecore::Fault::kBytesStored);
  const ByteRange range = ByteRange::At(offset, bytes.size());
  declared_ = range.end;
  object_->Declare(range);
  return std::nullopt;
}

// Each time, though they may be there: the daemon has bytes fetched again because one of these has
// gone bad on its disk, too.
std::optional<Failure> ObjectFetcher::VerifiedPiece::WriteTree() {
  const uint64_t tail = object_->tree_->layout().tail_offset();
  for (const auto& [number, block] : tree_) {
    const auto* data = reinterpret_cast<const char*>(block->data());
    auto failure = WriteToDataFile(object_->data_fd_.get(), tail + number * kVerityBlock,
                                   {data, block->size()});
    if (failure) return failure;
  }
  if (!tree_.empty()) cachecore::FaultPoint(cachecore::Fault::kTreeStored);
  return std::nullopt;
}

}  // namespace fetcher
