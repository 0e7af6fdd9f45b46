#include "snapshotter/snapshot_directory.h"

#include <fcntl.h>
#include <fts.h>
#include <glog/logging.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <system_error>

#include "cachecore/system/mount_table.h"

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

constexpr char kRecord[] = "/record";
constexpr int64_t kBlockBytes = 512;  // Of st_blocks.

Status MakeDirectory(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) != 0) return Status::FromErrno(errno, "make directory " + path);
  // Whatever the umask.
  if (chmod(path.c_str(), mode) != 0) return Status::FromErrno(errno, "chmod " + path);
  return {};
}

Status Sync(const std::string& directory) {
  const UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + directory);
  if (fsync(fd.get()) != 0) return Status::FromErrno(errno, "fsync " + directory);
  return {};
}

Result<std::string> ReadFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  std::string text;
  char buffer[16384];
  for (;;) {
    const ssize_t n = read(fd.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "read " + path);
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

Status WriteFile(const std::string& path, const std::string& text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return Status::FromErrno(errno, "create " + path);
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "write " + path);
    done += static_cast<size_t>(n);
  }
  if (fsync(fd.get()) != 0) return Status::FromErrno(errno, "fsync " + path);
  return {};
}

// The directory's name as an id; 0 when it is not a snapshot's.
uint64_t IdOf(const std::string& name) {
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  return error == std::errc() && end == name.data() + name.size() ? id : 0;
}

}  // namespace

Result<std::unique_ptr<SnapshotDirectory>> SnapshotDirectory::Open(const std::string& root) {
  std::error_code error;
  std::filesystem::create_directories(root, error);
  if (error) return Status::FromErrno(error.value(), "make directory " + root);
  if (chmod(root.c_str(), 0700) != 0) return Status::FromErrno(errno, "chmod " + root);
  UniqueFd lock(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid()) return Status::FromErrno(errno, "open " + root);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Status::FromErrno(errno, "lock " + root);
    return Status(EBUSY,
                  root + " is in use by another holdfast-snapshotter; give each its own --root");
  }
  const std::string real = std::filesystem::canonical(root, error).string();
  if (error) return Status::FromErrno(error.value(), root);
  if (real.find_first_of(":,\\\"") != std::string::npos) {
    return Status(EINVAL, "--root " + real + " has a character that overlay's options can't carry");
  }
  const std::string snapshots = real + "/snapshots";
  if (mkdir(snapshots.c_str(), 0700) != 0 && errno != EEXIST) {
    return Status::FromErrno(errno, "make directory " + snapshots);
  }
  return std::unique_ptr<SnapshotDirectory>(new SnapshotDirectory(snapshots, std::move(lock)));
}

Result<SnapshotDirectory::Contents> SnapshotDirectory::Read() const {
  Contents contents;
  std::error_code error;
  std::filesystem::directory_iterator entry(snapshots_, error);
  if (error) return Status::FromErrno(error.value(), "list " + snapshots_);
  while (entry != std::filesystem::directory_iterator()) {
    const std::string name = entry->path().filename().string();
    const uint64_t id = IdOf(name);
    if (id == 0) {
      LOG(WARNING) << snapshots_ << "/" << name << " is not ours and left alone";
    } else if (const Result<std::string> text = ReadFile(PathOf(id) + kRecord); text.ok()) {
      Result<SnapshotRecord> record = DecodeRecord(*text);
      if (record.ok() && record->id == id) {
        contents.records.push_back(std::move(record).value());
      } else {
        LOG(ERROR) << PathOf(id) << kRecord
                   << " is damaged; the snapshot is lost, its files are kept";
        contents.damaged.push_back(id);
      }
    } else if (text.status().error() == ENOENT) {
      contents.orphans.push_back(id);
    } else {
      return text.status();
    }
    entry.increment(error);
    if (error) return Status::FromErrno(error.value(), "list " + snapshots_);
  }
  return contents;
}

Status SnapshotDirectory::Create(uint64_t id, bool with_work) const {
  RETURN_IF_ERROR(MakeDirectory(PathOf(id), 0700));
  Status status = MakeDirectory(FsPath(id), 0755);
  if (status.ok() && with_work) status = MakeDirectory(WorkPath(id), 0711);
  if (!status.ok()) Remove(id).IgnoreError("the error that led here is the one to tell");
  return status;
}

Status SnapshotDirectory::CopyOwner(uint64_t id, const std::string& model) const {
  struct stat top = {};
  if (stat(model.c_str(), &top) != 0) return Status::FromErrno(errno, "stat " + model);
  const std::string fs = FsPath(id);
  if (chown(fs.c_str(), top.st_uid, top.st_gid) != 0)
    return Status::FromErrno(errno, "chown " + fs);
  if (chmod(fs.c_str(), top.st_mode & 07777) != 0) return Status::FromErrno(errno, "chmod " + fs);
  return {};
}

Status SnapshotDirectory::SyncFiles(uint64_t id) const {
  const std::string path = FsPath(id);
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  // The whole file system: thousands of fsync(2) of small files would take far longer.
  if (syncfs(fd.get()) != 0) return Status::FromErrno(errno, "sync the file system of " + path);
  return {};
}

Status SnapshotDirectory::WriteRecord(const SnapshotRecord& record) const {
  const std::string directory = PathOf(record.id);
  const std::string path = directory + kRecord;
  const std::string fresh = path + ".new";
  RETURN_IF_ERROR(WriteFile(fresh, EncodeRecord(record)));
  // The directory's own entry was made by Create.
  RETURN_IF_ERROR(Sync(snapshots_));
  if (rename(fresh.c_str(), path.c_str()) != 0)
    return Status::FromErrno(errno, "rename to " + path);
  return Sync(directory);
}

Status SnapshotDirectory::EraseRecord(uint64_t id) const {
  const std::string path = PathOf(id) + kRecord;
  if (unlink(path.c_str()) != 0) return Status::FromErrno(errno, "unlink " + path);
  return Sync(PathOf(id));
}

Status SnapshotDirectory::Remove(uint64_t id) const {
  const std::string path = PathOf(id);
  ASSIGN_OR_RETURN(const std::vector<cachecore::MountEntry> table, cachecore::ReadMountTable());
  for (const cachecore::MountEntry& entry : table) {
    if (entry.mount_point == path || entry.mount_point.starts_with(path + "/")) {
      return Status(EBUSY, entry.mount_point + " is mounted");
    }
  }
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? Status::FromErrno(error.value(), "remove " + path) : Status();
}

Result<DiskUsage> SnapshotDirectory::Measure(uint64_t id) const {
  std::string path = FsPath(id);
  char* paths[] = {path.data(), nullptr};
  const std::unique_ptr<FTS, int (*)(FTS*)> tree(
      fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, nullptr), fts_close);
  if (!tree) return Status::FromErrno(errno, "walk " + path);
  DiskUsage usage;
  std::set<ino_t> linked;  // Of one file system.
  for (;;) {
    errno = 0;
    const FTSENT* const entry = fts_read(tree.get());
    if (entry == nullptr) break;
    // What vanishes while it is walked does not count.
    if (entry->fts_info == FTS_DP || entry->fts_info == FTS_NS) continue;
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR) {
      if (entry->fts_errno == ENOENT) continue;
      return Status::FromErrno(entry->fts_errno, std::string("walk ") + entry->fts_path);
    }
    const struct stat& about = *entry->fts_statp;
    if (!S_ISDIR(about.st_mode) && about.st_nlink > 1 && !linked.insert(about.st_ino).second)
      continue;
    usage.bytes += about.st_blocks * kBlockBytes;
    ++usage.inodes;
  }
  if (errno != 0) return Status::FromErrno(errno, "walk " + path);
  return usage;
}

}  // namespace snapshotter
