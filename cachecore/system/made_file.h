// MadeFile: the file that holdfastd makes at a path to mount its cachefiles device on, and its end.
//
// Model    a socket to which nothing listens: while nothing is mounted on it an open gives ENXIO,
//          so that no program takes it for a device.  A record in the run directory has its path
//          before it is made, and its inode after.  Removed is that inode alone, or, where the
//          record has none yet, such a socket at the path.
// Errors   Status names the path.  A file that cannot be removed, as one that a device is mounted
//          on, keeps its record.
// Threads  thread-safe: no state.
// Crash    the record is written first: each step after it is undone by Remove.
// See      docs/cachefiles-compat.md; docs/recovery.md "The cachefiles device"

#ifndef CACHECORE_SYSTEM_MADE_FILE_H_
#define CACHECORE_SYSTEM_MADE_FILE_H_

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/base/unix_socket.h"
#include "cachecore/system/files.h"

namespace cachecore {

class MadeFile {
 public:
  // `record`: the record's path.
  explicit MadeFile(std::string record) : record_(std::move(record)) {}

  // What a record in this run directory is called.
  static std::string RecordIn(const std::string& run_dir) { return run_dir + "/cachefiles.file"; }

  // Where the recorded file is or was to be; "" without a record.
  std::string Path() const {
    const std::optional<Record> record = Load();
    return record ? record->path : "";
  }

  // Makes the file, unless something is there.
  Status Make(const std::string& path) const {
    struct stat info;
    if (lstat(path.c_str(), &info) == 0) return Status();
    RETURN_IF_ERROR(Save({path, 0, 0}));
    const bool made = mknod(path.c_str(), S_IFSOCK | kMode, 0) == 0;
    const int error = errno;
    if (!made) unlink(record_.c_str());
    if (!made && error != EEXIST) return Status::FromErrno(error, "making " + path);
    if (!made || lstat(path.c_str(), &info) != 0) return Status();
    return Save({path, info.st_dev, info.st_ino});
  }

  // Removes the file, and then the record.  Asks no server of what is mounted there.
  void Remove() const {
    const std::optional<Record> record = Load();
    if (!record) return;
    struct statx info;
    const int found = statx(AT_FDCWD, record->path.c_str(),
                            AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &info);
    if (found == 0 && IsRecorded(*record, info) && unlink(record->path.c_str()) != 0) return;
    // Something is mounted on it.
    const bool is_hidden = found == 0 && !IsRecorded(*record, info) && record->inode != 0 &&
                           makedev(info.stx_dev_major, info.stx_dev_minor) != record->device;
    if (!is_hidden) unlink(record_.c_str());
  }

  // Whether a file of that kind is at `path`, of whichever daemon.
  static bool IsAbandoned(const std::string& path) {
    // By its descriptor: a socket's address holds no long path.
    const UniqueFd file(open(path.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
    const Result<sockaddr_un> address = UnixAddress("/proc/self/fd/" + std::to_string(file.get()));
    const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return address.ok() && probe.valid() &&
           connect(probe.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) !=
               0 &&
           errno == ECONNREFUSED;
  }

 private:
  static constexpr mode_t kMode = 0600;
  static constexpr char kMagic[] = "holdfast-made-file-1";

  struct Record {
    std::string path;
    uint64_t device = 0;
    uint64_t inode = 0;  // 0: not known yet.
  };

  static bool IsRecorded(const Record& record, const struct statx& info) {
    if (!S_ISSOCK(info.stx_mode)) return false;
    if (record.inode == 0) {
      return (info.stx_mode & 07777) == kMode && info.stx_uid == geteuid() &&
             IsAbandoned(record.path);
    }
    return info.stx_ino == record.inode &&
           makedev(info.stx_dev_major, info.stx_dev_minor) == record.device;
  }

  Status Save(const Record& record) const {
    return WriteFileAtomically(record_,
                               std::string(kMagic) + " " + std::to_string(record.device) + " " +
                                   std::to_string(record.inode) + "\n" + record.path,
                               0600);
  }

  std::optional<Record> Load() const {
    const Result<std::string> text = ReadFile(record_);
    if (!text.ok()) return std::nullopt;
    std::istringstream in(text->substr(0, text->find('\n')));
    std::string magic;
    Record record;
    const bool is_whole = in >> magic >> record.device >> record.inode && magic == kMagic;
    if (!is_whole || text->find('\n') == std::string::npos) return std::nullopt;
    record.path = text->substr(text->find('\n') + 1);
    return record;
  }

  const std::string record_;
};

}  // namespace cachecore

#endif  // CACHECORE_SYSTEM_MADE_FILE_H_
