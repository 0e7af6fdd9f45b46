#include "cachecore/engine/verified_reader.h"

#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

namespace cachecore {
namespace {

// What could be read from `offset` on; what could not is left as it was.
size_t ReadAt(int fd, uint64_t offset, std::span<uint8_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

// The tree of one object in its data file.
class StoredTree {
 public:
  StoredTree(int fd, const ObjectVerity& object, TreeCache* trees)
      : fd_(fd), object_(object), trees_(trees) {}

  // Null, and *why says which tree block is wrong.
  TreeBlockPtr Leaf(uint64_t data_block, std::string* why) {
    const uint64_t number = object_.layout.LeafOf(data_block);
    if (leaf_ != nullptr && leaf_number_ == number) return leaf_;
    leaf_ = Load(number, why);
    leaf_number_ = number;
    return leaf_;
  }

 private:
  TreeBlockPtr Load(uint64_t number, std::string* why) {
    if (TreeBlockPtr known = trees_->Find(object_.number.value, number)) return known;
    const std::optional<uint64_t> parent_number = object_.layout.ParentOf(number);
    TreeBlockPtr parent;
    if (parent_number) {
      parent = Load(*parent_number, why);
      if (parent == nullptr) return nullptr;
    }
    auto block = std::make_shared<TreeBlock>();
    const uint64_t offset = object_.layout.tail_offset() + number * kVerityBlock;
    bool right = ReadAt(fd_, offset, *block) == kVerityBlock;
    if (right) {
      BlockHasher& hasher = BlockHasher::OfThisThread();
      const Digest hash = hasher.OfBlock(*block);
      right = parent ? HashIs(*parent, object_.layout.SlotOf(number), hash)
                     : hasher.OfFile(object_.layout.size_bytes(), hash) == object_.digest;
    }
    if (!right) {
      *why = "block " + std::to_string(number) + " of its Merkle tree is wrong";
      return nullptr;
    }
    trees_->Add(object_.number.value, number, block);
    return block;
  }

  const int fd_;
  const ObjectVerity& object_;
  TreeCache* const trees_;
  TreeBlockPtr leaf_;
  uint64_t leaf_number_ = 0;
};

bool IsRight(const ObjectVerity& object, uint64_t block, const TreeBlock* leaf,
             const Digest& hash) {
  if (leaf == nullptr) {
    return BlockHasher::OfThisThread().OfFile(object.layout.size_bytes(), hash) == object.digest;
  }
  return HashIs(*leaf, block % VerityLayout::kHashesPerBlock, hash);
}

void AddWrong(WrongRange wrong, std::vector<WrongRange>* list) {
  if (!list->empty() && list->back().range.end == wrong.range.begin &&
      list->back().why == wrong.why) {
    list->back().range.end = wrong.range.end;
  } else {
    list->push_back(std::move(wrong));
  }
}

}  // namespace

std::vector<WrongRange> ReadVerified(int fd, const ObjectVerity& object, ByteRange range,
                                     std::span<uint8_t> buffer, TreeCache* trees) {
  const uint64_t begin = range.begin - range.begin % kVerityBlock;
  const uint64_t size = object.layout.size_bytes();
  const uint64_t end = std::min(size, (range.end + kVerityBlock - 1) / kVerityBlock * kVerityBlock);
  CHECK_LE(end - begin, buffer.size());
  const size_t read = ReadAt(fd, begin, buffer.subspan(0, end - begin));
  static thread_local std::vector<Digest> hashes;
  hashes.resize(std::max<size_t>(hashes.size(), (end - begin) / kVerityBlock + 1));
  BlockHasher::OfThisThread().OfBlocks(buffer.subspan(0, read), hashes);
  std::vector<WrongRange> wrong;
  StoredTree tree(fd, object, trees);
  for (uint64_t at = begin; at < end; at += kVerityBlock) {
    const ByteRange block{at, std::min(end, at + kVerityBlock)};
    if (block.end - begin > read) {
      AddWrong({block, "they cannot be read from the data file"}, &wrong);
      continue;
    }
    TreeBlockPtr leaf;
    std::string why;
    if (object.layout.has_tree()) leaf = tree.Leaf(at / kVerityBlock, &why);
    if (!why.empty()) {
      AddWrong({block, std::move(why), true}, &wrong);
    } else if (!IsRight(object, at / kVerityBlock, leaf.get(),
                        hashes[(at - begin) / kVerityBlock])) {
      AddWrong({block, "they are not what the digest says"}, &wrong);
    }
  }
  return wrong;
}

}  // namespace cachecore
