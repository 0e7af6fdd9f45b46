#include "cachecore/boot_id.h"

#include <cerrno>
#include <fstream>

namespace cachecore {

Result<std::string> ReadBootId() {
  const char kPath[] = "/proc/sys/kernel/random/boot_id";
  std::ifstream file(kPath);
  std::string boot_id;
  if (!(file >> boot_id))
    return Status(EIO, std::string(kPath) + " cannot be read: is /proc mounted?");
  return boot_id;
}

}  // namespace cachecore
