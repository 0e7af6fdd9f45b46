#include "cachecore/offline/verify_content.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "cachecore/base/unique_fd.h"

namespace cachecore {
namespace {

Result<UniqueFd> OpenToRead(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  return fd;
}

Status ReadFully(const std::string& path, const UniqueFd& fd, uint64_t offset, size_t size,
                 char* out) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = pread(fd.get(), out + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0) return Status::FromErrno(errno, "read " + path);
    if (got == 0) return Status(EBADMSG, path + " ends at " + std::to_string(offset + done));
    done += static_cast<size_t>(got);
  }
  return Status();
}

}  // namespace

Status CompareWithFile(const std::string& path, const std::string& right,
                       const PresenceMap& present, uint64_t* compared_bytes) {
  constexpr uint64_t kStep = 1 << 20;
  const uint64_t size = present.size_bytes();
  ASSIGN_OR_RETURN(const UniqueFd data, OpenToRead(path));
  ASSIGN_OR_RETURN(const UniqueFd truth, OpenToRead(right));
  struct stat info;
  if (fstat(truth.get(), &info) != 0) return Status::FromErrno(errno, "stat " + right);
  if (static_cast<uint64_t>(info.st_size) != size) {
    return Status(EBADMSG, right + " is of " + std::to_string(info.st_size) +
                               " bytes, the object of " + std::to_string(size));
  }
  std::vector<char> ours(kStep);
  std::vector<char> theirs(kStep);
  uint64_t first_wrong = 0;
  uint64_t wrong_blocks = 0;
  for (uint64_t at = present.FirstPresent({0, size}); at < size;
       at = present.FirstPresent({at, size})) {
    const uint64_t end = std::min(present.FirstMissing({at, size}), at + kStep);
    const auto length = static_cast<size_t>(end - at);
    RETURN_IF_ERROR(ReadFully(path, data, at, length, ours.data()));
    RETURN_IF_ERROR(ReadFully(right, truth, at, length, theirs.data()));
    for (size_t i = 0; i < length; i += kBlockSize) {
      const size_t block = std::min<size_t>(kBlockSize, length - i);
      if (std::memcmp(&ours[i], &theirs[i], block) == 0) continue;
      if (wrong_blocks++ == 0) first_wrong = at + i;
    }
    *compared_bytes += length;
    at = end;
  }
  if (wrong_blocks == 0) return Status();
  return Status(EBADMSG, "present bytes differ from " + right + ", first in the block at " +
                             std::to_string(first_wrong) +
                             "; blocks that differ: " + std::to_string(wrong_blocks));
}

}  // namespace cachecore
