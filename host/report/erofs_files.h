// ListErofsFiles: which files of an EROFS image its blocks belong to.
//
// Model    walks the image's own directories, by what `read` can give.  A directory or an inode
//          that it cannot is counted and left out: a program that has used a file has had its inode
//          read.  Of a compressed file the blocks are taken for one run, as mkfs.erofs writes it.
// Units    bytes from the start of the image.
// Errors   EINVAL: no EROFS image, or a layout that is not known.  What is damaged further in is
//          left out and counted: nothing of an image is trusted.
// Threads  thread-safe: no state.
// Cost     one read of an inode for each name; kMaxFiles names, 1 GiB that is read and some hundred
//          MiB of memory at most, whatever the image says.
// See      Documentation/filesystems/erofs.rst of the kernel, and its fs/erofs/erofs_fs.h.

#ifndef HOST_REPORT_EROFS_FILES_H_
#define HOST_REPORT_EROFS_FILES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"

namespace host {

// Fills `to` from `offset`; false: not all of it can be had.
using ReadImage = std::function<bool(uint64_t offset, void* to, size_t size)>;

struct ErofsFile {
  std::string path;  // From the root, with a slash.
  uint64_t size_bytes = 0;
  std::vector<cachecore::ByteRange> extents;  // Its data; without holes.
};

struct ErofsListing {
  static constexpr size_t kMaxFiles = 500'000;

  std::vector<ErofsFile> files;  // Regular files, in the order of their first block.
  uint64_t unread = 0;           // Inodes and directory blocks that could not be read.
  bool is_cut = false;           // There is more than kMaxFiles, or than is read of an image.
};

cachecore::Result<ErofsListing> ListErofsFiles(const ReadImage& read);

}  // namespace host

#endif  // HOST_REPORT_EROFS_FILES_H_
