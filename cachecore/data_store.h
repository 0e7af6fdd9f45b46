// DataStore: the sparse files that hold objects' bytes.
//
// Model    one file an object, named by its number: DIR/xx/NUMBER.data, xx the number's low byte. A
//          file's holes mean nothing: presence is the metadata store's.
// Errors   the file system's errno, with the path.
// Threads  thread-safe; every call may block on disk.
// Owns     nothing between calls; descriptors go to the caller.
// Crash    Create truncates what an earlier life left under the number.

#ifndef CACHECORE_DATA_STORE_H_
#define CACHECORE_DATA_STORE_H_

#include <string>

#include "cachecore/ids.h"
#include "cachecore/status.h"
#include "cachecore/unique_fd.h"

namespace cachecore {

class DataStore {
 public:
  // Makes `directory` (mode 0700) if need be.  Fails if it cannot be written to, unless that is for
  // the disk's state: what is in it can be served then.
  static Result<DataStore> Open(const std::string& directory);

  // A new empty file of the given size, open for reading and writing.
  Result<UniqueFd> Create(ObjectNumber number, uint64_t size_bytes) const;
  // An existing file, open for reading and writing, or for reading where the disk takes no writes.
  // ENOENT if it is gone; EBADMSG if its size is
  // not `size_bytes`, or, where there may be a Merkle tree behind the object, more up to `tail_end`.
  Result<UniqueFd> OpenExisting(ObjectNumber number, uint64_t size_bytes, uint64_t tail_end) const;
  Result<UniqueFd> OpenExisting(ObjectNumber number, uint64_t size_bytes) const {
    return OpenExisting(number, size_bytes, size_bytes);
  }
  // The same file, open for writing only: what a fetcher is given.
  Result<UniqueFd> OpenForFetcher(ObjectNumber number) const;
  // ENOENT is success.
  Status Remove(ObjectNumber number) const;

  std::string PathOf(ObjectNumber number) const { return PathIn(directory_, number); }
  static std::string PathIn(const std::string& directory, ObjectNumber number);

 private:
  explicit DataStore(std::string directory) : directory_(std::move(directory)) {}
  std::string directory_;
};

}  // namespace cachecore

#endif  // CACHECORE_DATA_STORE_H_
