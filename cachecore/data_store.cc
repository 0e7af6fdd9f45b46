#include "cachecore/data_store.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>

namespace cachecore {
namespace {

// What a disk says that is full, or takes no writes any more: what it holds can still be read.
bool TakesNoWrites(int error) {
  return error == ENOSPC || error == EDQUOT || error == EROFS || error == EPERM || error == EIO;
}

Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return Status();
  return Status::FromErrno(errno, "make directory " + path);
}

Result<UniqueFd> OpenFile(const std::string& path, int flags) {
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  return fd;
}

}  // namespace

Result<DataStore> DataStore::Open(const std::string& directory) {
  RETURN_IF_ERROR(MakeDirectory(directory));
  // Made and removed for real: access(2) does not see a full or dying file system, and root passes
  // it.
  const std::string probe = directory + "/.probe." + std::to_string(getpid());
  Result<UniqueFd> fd = OpenFile(probe, O_RDWR | O_CREAT | O_TRUNC);
  if (!fd.ok() && TakesNoWrites(fd.status().error())) {
    LOG(ERROR) << "what is in the cache is served, but nothing can be added: "
               << fd.status().message();
    return DataStore(directory);
  }
  if (!fd.ok()) {
    return std::move(fd).status().WithContext("the cache's data directory cannot be written to");
  }
  if (unlink(probe.c_str()) != 0) return Status::FromErrno(errno, "remove " + probe);
  return DataStore(directory);
}

std::string DataStore::PathIn(const std::string& directory, ObjectNumber number) {
  char fan_out[4];
  std::snprintf(fan_out, sizeof(fan_out), "%02x", static_cast<uint8_t>(number.value));
  return directory + "/" + fan_out + "/" + std::to_string(number.value) + ".data";
}

Result<UniqueFd> DataStore::Create(ObjectNumber number, uint64_t size_bytes) const {
  const std::string path = PathOf(number);
  if (size_bytes > INT64_MAX) return Status::FromErrno(EFBIG, "size " + path);
  RETURN_IF_ERROR(MakeDirectory(path.substr(0, path.rfind('/'))));
  ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
  if (ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    const int error = errno;
    unlink(path.c_str());
    return Status::FromErrno(error, "size " + path + " to " + std::to_string(size_bytes));
  }
  return fd;
}

Result<UniqueFd> DataStore::OpenExisting(ObjectNumber number, uint64_t size_bytes,
                                         uint64_t tail_end) const {
  const std::string path = PathOf(number);
  Result<UniqueFd> opened = OpenFile(path, O_RDWR);
  if (!opened.ok() && TakesNoWrites(opened.status().error())) opened = OpenFile(path, O_RDONLY);
  ASSIGN_OR_RETURN(UniqueFd fd, std::move(opened));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return Status::FromErrno(errno, "stat " + path);
  const auto found = static_cast<uint64_t>(info.st_size);
  if (!S_ISREG(info.st_mode) || found < size_bytes || found > std::max(size_bytes, tail_end)) {
    return Status(EBADMSG, path + " is not a file of " + std::to_string(size_bytes) +
                               " bytes but of " + std::to_string(info.st_size));
  }
  return fd;
}

Result<UniqueFd> DataStore::OpenForFetcher(ObjectNumber number) const {
  return OpenFile(PathOf(number), O_WRONLY);
}

Status DataStore::Remove(ObjectNumber number) const {
  const std::string path = PathOf(number);
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return Status();
  return Status::FromErrno(errno, "remove " + path);
}

}  // namespace cachecore
