#include "host/instance/cache_dir.h"

#include <sys/stat.h>

#include <cerrno>

#include "cachecore/system/files.h"
#include "host/instance/settings.h"

namespace host {

using cachecore::ReadJsonFile;
using cachecore::Result;
using cachecore::Status;

std::string CacheDirOf(const Instance& instance) {
  const Result<nlohmann::json> file = ReadJsonFile(instance.SettingsFile());
  return (file.ok() ? Settings::FromJson(*file) : Settings()).CacheDirFor(instance);
}

Status CheckIsCache(const std::string& cache_dir) {
  struct stat info;
  if (stat((cache_dir + "/db").c_str(), &info) == 0) return Status();
  if (errno == EACCES) return Status(EACCES, "looking into " + cache_dir + " needs root; use sudo");
  return Status::FromErrno(errno, "no cache in " + cache_dir);
}

}  // namespace host
