#include "cachecore/store/data_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <glog/logging.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string_view>

namespace cachecore {
namespace {

// The errors of a disk that is full, or takes no more writes: what it holds can still be read.
bool TakesNoWrites(int error) {
  return error == ENOSPC || error == EDQUOT || error == EROFS || error == EPERM || error == EIO;
}

Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return Status();
  return Status::FromErrno(errno, "make directory " + path);
}

DataFile DataFileOf(ObjectNumber number, const struct stat& info) {
  return {number, static_cast<uint64_t>(info.st_size), static_cast<uint64_t>(info.st_blocks) * 512,
          static_cast<uint64_t>(std::max<time_t>(0, std::max(info.st_atime, info.st_mtime)))};
}

}  // namespace

Result<UniqueFd> DataStore::OpenFile(const std::string& path, int flags) const {
  UniqueFd fd(openat(fd_.get(), Below(path), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  return fd;
}

Result<DataStore> DataStore::Open(const std::string& directory) {
  RETURN_IF_ERROR(MakeDirectory(directory));
  UniqueFd opened(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.valid()) {
    return Status::FromErrno(errno, "open " + directory)
        .WithContext("the cache's data directory cannot be written to");
  }
  DataStore store(directory, std::move(opened));
  // Made and removed for real: access(2) does not see a full or dying file system, and root passes
  // it.
  const std::string probe = directory + "/.probe." + std::to_string(getpid());
  Result<UniqueFd> fd = store.OpenFile(probe, O_RDWR | O_CREAT | O_TRUNC);
  if (!fd.ok() && TakesNoWrites(fd.status().error())) {
    LOG(ERROR) << "what is in the cache is served, but nothing can be added: "
               << fd.status().message();
    return store;
  }
  if (!fd.ok()) {
    return std::move(fd).status().WithContext("the cache's data directory cannot be written to");
  }
  if (unlink(probe.c_str()) != 0) return Status::FromErrno(errno, "remove " + probe);
  return store;
}

Status DataStore::CheckIsThere() const {
  // What cannot be read now is there all the same.
  if (faccessat(fd_.get(), kMark, F_OK, 0) == 0 || errno != ENOENT) return Status();
  // A cache of a version that made no mark has directories of two digits.
  for (int low = 0; low <= UINT8_MAX; ++low) {
    const std::string path = PathOf(ObjectNumber{static_cast<uint64_t>(low)});
    const std::string fan_out(Below(path), 2);
    if (faccessat(fd_.get(), fan_out.c_str(), F_OK, 0) == 0) return Status();
  }
  return Status(ENOENT, directory_ +
                            " has nothing of the objects that the database knows: mount "
                            "the file system that holds it; if what it held is lost, "
                            "make the file " +
                            directory_ + "/" + kMark + ", and all is fetched again");
}

Status DataStore::Mark() const {
  const std::string path = directory_ + "/" + kMark;
  if (faccessat(fd_.get(), kMark, F_OK, 0) == 0) return Status();
  ASSIGN_OR_RETURN(const UniqueFd mark, OpenFile(path, O_WRONLY | O_CREAT));
  if (fsync(mark.get()) != 0 || fsync(fd_.get()) != 0) {
    return Status::FromErrno(errno, "sync " + path);
  }
  return Status();
}

std::string DataStore::PathIn(const std::string& directory, ObjectNumber number) {
  char fan_out[4];
  std::snprintf(fan_out, sizeof(fan_out), "%02x", static_cast<uint8_t>(number.value));
  return directory + "/" + fan_out + "/" + std::to_string(number.value) + ".data";
}

Result<UniqueFd> DataStore::Create(ObjectNumber number, uint64_t size_bytes) const {
  const std::string path = PathOf(number);
  if (size_bytes > INT64_MAX) return Status::FromErrno(EFBIG, "size " + path);
  const std::string fan_out = path.substr(0, path.rfind('/'));
  if (mkdirat(fd_.get(), Below(fan_out), 0700) != 0 && errno != EEXIST) {
    return Status::FromErrno(errno, "make directory " + fan_out);
  }
  ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
  if (ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    const int error = errno;
    unlinkat(fd_.get(), Below(path), 0);
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
  if (unlinkat(fd_.get(), Below(path), 0) == 0 || errno == ENOENT) return Status();
  return Status::FromErrno(errno, "remove " + path);
}

Result<DataFile> DataStore::Find(ObjectNumber number) const {
  const std::string path = PathOf(number);
  struct stat info;
  if (fstatat(fd_.get(), Below(path), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return Status::FromErrno(errno, "stat " + path);
  }
  return DataFileOf(number, info);
}

Status DataStore::ScanExtents(ObjectNumber number,
                              const std::function<void(ByteRange)>& visit) const {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(PathOf(number), O_RDONLY));
  for (off_t begin = 0, end = 0; (begin = lseek(fd.get(), end, SEEK_DATA)) >= 0;) {
    end = lseek(fd.get(), begin, SEEK_HOLE);
    if (end < 0) break;
    visit({static_cast<uint64_t>(begin), static_cast<uint64_t>(end)});
  }
  return errno == ENXIO ? Status() : Status::FromErrno(errno, "look for data in " + PathOf(number));
}

Status DataStore::Scan(const std::function<void(const DataFile&)>& visit) const {
  for (int low = 0; low <= UINT8_MAX; ++low) {
    std::string path = PathOf(ObjectNumber{static_cast<uint64_t>(low)});
    path.resize(path.rfind('/'));
    UniqueFd directory(openat(fd_.get(), Below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid()) {
      if (errno == ENOENT) continue;
      return Status::FromErrno(errno, "open " + path);
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(directory.get()), closedir);
    if (listing == nullptr) return Status::FromErrno(errno, "list " + path);
    const int here = directory.Release();  // The listing's.
    while (const dirent* entry = readdir(listing.get())) {
      DataFile file;
      const std::string_view name = entry->d_name;
      const std::errc error =
          std::from_chars(name.data(), name.data() + name.size(), file.number.value).ec;
      struct stat info;
      // Others' files, and copies of ours, are not ours.
      if (error != std::errc() || path + "/" + entry->d_name != PathOf(file.number) ||
          fstatat(here, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        continue;
      }
      visit(DataFileOf(file.number, info));
    }
  }
  return Status();
}

Result<DiskSpace> DataStore::Space() const {
  struct statvfs info;
  if (fstatvfs(fd_.get(), &info) != 0) return Status::FromErrno(errno, "statvfs " + directory_);
  return DiskSpace{info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize};
}

}  // namespace cachecore
