#include "cachecore/store/boot_id.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <fstream>

namespace cachecore {
namespace {

constexpr unsigned kMntIdUnique = 0x4000;  // STATX_MNT_ID_UNIQUE, of Linux 6.8.
// Of "01234567-89ab-cdef-0123-456789abcdef", what the mounts are mixed into.
constexpr size_t kMixedAt = 24;

// Never given again in this boot; 0 where the kernel does not have it.
uint64_t MountOf(const std::string& path, uint64_t otherwise) {
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), 0, kMntIdUnique, &info) != 0) return otherwise;
  return (info.stx_mask & kMntIdUnique) != 0 ? info.stx_mnt_id : 0;
}

}  // namespace

Result<std::string> ReadBootId(const std::string& cache_dir) {
  const char kPath[] = "/proc/sys/kernel/random/boot_id";
  std::ifstream file(kPath);
  std::string boot_id;
  if (!(file >> boot_id) || boot_id.size() < kMixedAt) {
    return Status(EIO, std::string(kPath) + " cannot be read: is /proc mounted?");
  }
  const uint64_t parent = MountOf(cache_dir, 0);
  const uint64_t mounts[] = {MountOf(cache_dir + "/db", parent),
                             MountOf(cache_dir + "/data", parent)};
  if (mounts[0] == 0 && mounts[1] == 0) return boot_id;
  const uint64_t hash = XXH64(boot_id.data(), boot_id.size(), XXH64(mounts, sizeof(mounts), 0));
  char mixed[13];
  std::snprintf(mixed, sizeof(mixed), "%012llx",
                static_cast<unsigned long long>(hash & 0xffffffffffff));
  return boot_id.substr(0, kMixedAt) + mixed;
}

}  // namespace cachecore
