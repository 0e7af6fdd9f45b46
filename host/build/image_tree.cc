#include "host/build/image_tree.h"

#include <fts.h>
#include <sys/stat.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <set>

#include "cachecore/base/deadline.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalled;

constexpr size_t kNameBytesMax = 254;  // Of mkfs.erofs 1.5; the file system itself takes 255.

// Calls `visit` for everything below `directory` and itself; a directory after what is in it.
Status Walk(const std::string& directory, const std::function<Status(const FTSENT&)>& visit) {
  std::string path = directory;
  char* roots[] = {path.data(), nullptr};
  const std::unique_ptr<FTS, int (*)(FTS*)> walk(
      fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, nullptr), fts_close);
  if (!walk) return Status::FromErrno(errno, directory);
  for (;;) {
    errno = 0;
    const FTSENT* entry = fts_read(walk.get());
    if (entry == nullptr && errno != 0)
      return Status::FromErrno(errno, "walk through " + directory);
    if (entry == nullptr) return {};
    if (StopSignalled()) return Status(EINTR, "interrupted by a signal");
    if (entry->fts_info == FTS_D) continue;
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
      return Status::FromErrno(entry->fts_errno, entry->fts_path);
    }
    RETURN_IF_ERROR(visit(*entry));
  }
}

}  // namespace

Result<TreeSize> MeasureTree(const std::string& directory) {
  TreeSize size;
  std::set<std::pair<dev_t, ino_t>> linked;
  RETURN_IF_ERROR(Walk(directory, [&](const FTSENT& entry) -> Status {
    const struct stat& info = *entry.fts_statp;
    // It would cut the name off, and look for a file that isn't there or is another one.
    if (entry.fts_level > 0 && entry.fts_namelen > kNameBytesMax) {
      return Status(ENAMETOOLONG, std::string(entry.fts_path) + ": its name has " +
                                      std::to_string(entry.fts_namelen) +
                                      " bytes; mkfs.erofs takes 254 at most");
    }
    const bool is_known = !S_ISDIR(info.st_mode) && info.st_nlink > 1 &&
                          !linked.emplace(info.st_dev, info.st_ino).second;
    if (is_known) return {};
    ++size.files;
    if (S_ISREG(info.st_mode)) size.bytes += static_cast<uint64_t>(info.st_size);
    return {};
  }));
  return size;
}

}  // namespace host
