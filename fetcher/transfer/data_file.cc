#include "fetcher/transfer/data_file.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>

namespace fetcher {

Failure DataFileFailure(int fd, int error) {
  char path[PATH_MAX];
  const ssize_t size =
      readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof(path));
  const std::string file =
      size < 0 ? "the data file" : std::string(path, static_cast<size_t>(size));
  return {Failure::Kind::kLocal, error, "write to " + file + ": " + std::strerror(error),
          Duration::zero()};
}

bool TakesNoWrites(int error) { return error == ENOSPC || error == EDQUOT || error == EROFS; }

}  // namespace fetcher
