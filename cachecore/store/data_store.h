// DataStore: the sparse files that hold objects' bytes.
//
// Model    one file an object, named by its number: DIR/xx/NUMBER.data, xx the number's low byte. A
//          file's holes mean nothing: presence is the metadata store's.  The directory is held
//          open, so that what is mounted over it, or unmounted lazily, changes nothing for this
//          process.  A mark in it tells it from the empty mount point of a file system that is not
//          there.
// Errors   the file system's errno, with the path.
// Threads  thread-safe; every call may block on disk.
// Owns     the directory's descriptor; those of files go to the caller.
// Crash    Create truncates what an earlier daemon left under the number.

#ifndef CACHECORE_STORE_DATA_STORE_H_
#define CACHECORE_STORE_DATA_STORE_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/values/ids.h"

namespace cachecore {

// The data file of an object, as it is on disk.
struct DataFile {
  ObjectNumber number;
  uint64_t size_bytes = 0;
  uint64_t allocated = 0;  // Bytes of the disk.
  uint64_t used = 0;       // Last read or written, as far as the file tells; seconds since 1970.
};

struct DiskSpace {
  uint64_t free = 0;
  uint64_t total = 0;
};

class DataStore {
 public:
  // Makes `directory` (mode 0700) if need be.  Fails if it cannot be written to, unless that is for
  // the disk's state: what is in it can be served then.
  static Result<DataStore> Open(const std::string& directory);

  // Fails when there is neither a mark nor any other file of the cache.
  Status CheckIsThere() const;
  // Makes the mark, which is then as durable as any file that is made after it.
  Status Mark() const;

  // A new empty file of the given size, open for reading and writing.
  Result<UniqueFd> Create(ObjectNumber number, uint64_t size_bytes) const;
  // An existing file, open for reading and writing, or for reading where the disk takes no writes.
  // ENOENT if it is gone; EBADMSG if its size is not `size_bytes`, or, where there may be a Merkle
  // tree behind the object, more up to `tail_end`.
  Result<UniqueFd> OpenExisting(ObjectNumber number, uint64_t size_bytes, uint64_t tail_end) const;
  Result<UniqueFd> OpenExisting(ObjectNumber number, uint64_t size_bytes) const {
    return OpenExisting(number, size_bytes, size_bytes);
  }
  // The same file, open for writing only: what a fetcher is given.
  Result<UniqueFd> OpenForFetcher(ObjectNumber number) const;
  // ENOENT is success.
  Status Remove(ObjectNumber number) const;

  const std::string& directory() const { return directory_; }
  Result<DataFile> Find(ObjectNumber number) const;
  // Calls `visit` for each part of the file that is not a hole.
  Status ScanExtents(ObjectNumber number, const std::function<void(ByteRange)>& visit) const;
  // Calls `visit` for each data file.
  Status Scan(const std::function<void(const DataFile&)>& visit) const;
  // What other files may still take of the file system, and its size, in bytes.
  Result<DiskSpace> Space() const;

  std::string PathOf(ObjectNumber number) const { return PathIn(directory_, number); }
  static std::string PathIn(const std::string& directory, ObjectNumber number);

  static constexpr char kMark[] = ".holdfast-data";

 private:
  DataStore(std::string directory, UniqueFd fd)
      : directory_(std::move(directory)), fd_(std::move(fd)) {}
  // `path`: that of a file below the directory.
  Result<UniqueFd> OpenFile(const std::string& path, int flags) const;
  const char* Below(const std::string& path) const { return path.c_str() + directory_.size() + 1; }

  std::string directory_;
  UniqueFd fd_;
};

}  // namespace cachecore

#endif  // CACHECORE_STORE_DATA_STORE_H_
