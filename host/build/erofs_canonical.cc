#include "host/build/erofs_canonical.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cachecore/base/unique_fd.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kSuperblockAt = 1024;
constexpr uint64_t kSuperblockBytes = 128;
constexpr uint64_t kBuildTimeAt = 24;  // In the superblock: seconds and nanoseconds.
constexpr size_t kBuildTimeBytes = 12;
constexpr uint32_t kMagic = 0xE0F5E1E2;
constexpr uint64_t kInodeSlotBytes = 32;
constexpr uint64_t kCompactInodeBytes = 32;
constexpr uint64_t kExtendedInodeBytes = 64;
constexpr uint64_t kXattrHeaderBytes = 12;
constexpr size_t kXattrEntryBytes = 4;
constexpr size_t kDirentBytes = 12;
constexpr unsigned kFlatPlain = 0;
constexpr unsigned kFlatInline = 2;
constexpr uint64_t kDirectoryBytesMax = uint64_t{1} << 32;

uint64_t Number(std::string_view bytes, size_t offset, size_t length) {
  uint64_t value = 0;
  for (size_t i = length; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[offset + i]);
  }
  return value;
}

class ErofsImage {
 public:
  explicit ErofsImage(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}

  Status MakeCanonical() {
    if (!fd_.valid()) return Status::FromErrno(errno, path_);
    ASSIGN_OR_RETURN(const std::string superblock, Read(kSuperblockAt, kSuperblockBytes));
    if (Number(superblock, 0, 4) != kMagic || Number(superblock, 12, 1) != 12 ||
        (Number(superblock, 8, 4) & 1) != 0) {
      return Bad("its superblock");
    }
    RETURN_IF_ERROR(Write(kSuperblockAt + kBuildTimeAt, std::string(kBuildTimeBytes, '\0')));
    inodes_at_ = Number(superblock, 40, 4) * kBlockBytes;
    Find(Number(superblock, 14, 2));
    while (!found_.empty()) {
      const uint64_t inode = found_.back();
      found_.pop_back();
      RETURN_IF_ERROR(Visit(inode));
    }
    return {};
  }

 private:
  Status Bad(const std::string& what) const {
    return Status(EBADMSG, path_ + ": " + what + " is not as mkfs.erofs makes it");
  }

  void Find(uint64_t inode) {
    if (seen_.insert(inode).second) found_.push_back(inode);
  }

  Result<std::string> Read(uint64_t at, uint64_t length) const {
    std::string bytes(length, '\0');
    const ssize_t got = pread(fd_.get(), bytes.data(), length, static_cast<off_t>(at));
    if (got < 0) return Status::FromErrno(errno, "read " + path_);
    if (static_cast<uint64_t>(got) != length) return Bad("a reference behind its end");
    return bytes;
  }

  Status Write(uint64_t at, const std::string& bytes) const {
    const ssize_t put = pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (put == static_cast<ssize_t>(bytes.size())) return {};
    return Status::FromErrno(put < 0 ? errno : EIO, "write " + path_);
  }

  Status Visit(uint64_t number) {
    const uint64_t at = inodes_at_ + number * kInodeSlotBytes;
    ASSIGN_OR_RETURN(const std::string inode, Read(at, kCompactInodeBytes));
    const uint64_t format = Number(inode, 0, 2);
    const bool is_extended = (format & 1) != 0;
    const uint64_t xattr_count = Number(inode, 2, 2);
    const uint64_t xattrs_at = at + (is_extended ? kExtendedInodeBytes : kCompactInodeBytes);
    const uint64_t xattr_bytes = xattr_count == 0 ? 0 : kXattrHeaderBytes + 4 * (xattr_count - 1);
    if (xattr_bytes != 0) RETURN_IF_ERROR(SortInode(xattrs_at, xattr_bytes));
    if (!S_ISDIR(Number(inode, 4, 2))) return {};
    return VisitDirectory(format >> 1 & 7, Number(inode, 8, is_extended ? 8 : 4),
                          Number(inode, 16, 4) * kBlockBytes, xattrs_at + xattr_bytes);
  }

  Status VisitDirectory(unsigned layout, uint64_t size, uint64_t blocks_at, uint64_t tail_at) {
    if ((layout != kFlatPlain && layout != kFlatInline) || size > kDirectoryBytesMax) {
      return Bad("a directory");
    }
    for (uint64_t done = 0; done < size; done += kBlockBytes) {
      const uint64_t length = std::min(kBlockBytes, size - done);
      const bool is_tail = layout == kFlatInline && length < kBlockBytes;
      ASSIGN_OR_RETURN(const std::string block, Read(is_tail ? tail_at : blocks_at + done, length));
      if (length < kDirentBytes) return Bad("a directory");
      const uint64_t names_at = Number(block, 8, 2);
      if (names_at > length) return Bad("a directory");
      for (uint64_t entry = 0; entry + kDirentBytes <= names_at; entry += kDirentBytes) {
        Find(Number(block, entry, 8));
      }
    }
    return {};
  }

  // The numbers of shared attributes come first, then the entries of the inode's own.
  Status SortInode(uint64_t at, uint64_t length) {
    ASSIGN_OR_RETURN(const std::string body, Read(at, length));
    const uint64_t shared_count = Number(body, 4, 1);
    uint64_t next = kXattrHeaderBytes + 4 * shared_count;
    if (next > length) return Bad("an extended attribute");
    std::vector<std::string> shared, own;
    for (uint64_t i = kXattrHeaderBytes; i < next; i += 4) shared.push_back(body.substr(i, 4));
    while (next + kXattrEntryBytes <= length) {
      const uint64_t bytes = kXattrEntryBytes + Number(body, next, 1) + Number(body, next + 2, 2);
      const uint64_t padded = (bytes + 3) / 4 * 4;
      if (next + padded > length) return Bad("an extended attribute");
      own.push_back(body.substr(next, padded));
      next += padded;
    }
    std::sort(shared.begin(), shared.end(), [](const std::string& a, const std::string& b) {
      return Number(a, 0, 4) < Number(b, 0, 4);
    });
    std::sort(own.begin(), own.end(),
              [](const std::string& a, const std::string& b) { return KeyOf(a) < KeyOf(b); });
    std::string sorted = body.substr(0, kXattrHeaderBytes);
    for (const std::string& number : shared) sorted += number;
    for (const std::string& entry : own) sorted += entry;
    sorted += body.substr(next);
    return sorted == body ? Status() : Write(at, sorted);
  }

  // The number of its prefix and its name: no inode has two of the same.
  static std::string KeyOf(const std::string& entry) {
    return entry.substr(1, 1) + entry.substr(kXattrEntryBytes, Number(entry, 0, 1));
  }

  const std::string path_;
  const UniqueFd fd_;
  uint64_t inodes_at_ = 0;
  std::vector<uint64_t> found_;  // Not visited yet.
  std::unordered_set<uint64_t> seen_;
};

}  // namespace

Status MakeErofsCanonical(const std::string& path) { return ErofsImage(path).MakeCanonical(); }

}  // namespace host
