// RegisteredFiles: the files that a fetcher may need opened: those that an instance's sources name.
//
// Model    sources are root's: a directory or a source file of another user, or one that others
//          may write to, registers nothing.  Each call reads the sources again.
// Errors   EPERM: the file is registered by no source, or the sources are not root's; others as
//          OpenPinnedFile.
// Threads  thread-safe: immutable.  Blocks on disks.
// Cost     a file that `volume` does not name is looked for in every source.

#ifndef FETCHER_SOURCE_REGISTERED_FILES_H_
#define FETCHER_SOURCE_REGISTERED_FILES_H_

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "fetcher/source/source_config.h"

namespace fetcher {

class RegisteredFiles {
 public:
  RegisteredFiles(std::string sources_dir, std::string device)
      : sources_dir_(std::move(sources_dir)), device_(std::move(device)) {}

  std::string SourcePath(const std::string& volume) const {
    return sources_dir_ + "/" + volume + ".json";
  }
  cachecore::Result<cachecore::UniqueFd> OpenSource(const std::string& volume) const;
  // The object of `volume` that `url` names.
  cachecore::Result<cachecore::UniqueFd> OpenObject(const std::string& volume,
                                                    const std::string& url) const;
  // A file of certificates or secrets.
  cachecore::Result<cachecore::UniqueFd> OpenFile(const std::string& path) const;
  // The daemon's socket, as an O_PATH descriptor.
  cachecore::Result<cachecore::UniqueFd> OpenDevice() const;

 private:
  cachecore::Result<cachecore::UniqueFd> OpenSourcesDir() const;
  cachecore::Result<cachecore::UniqueFd> OpenSourceIn(const cachecore::UniqueFd& directory,
                                                      const std::string& name) const;

  const std::string sources_dir_;
  const std::string device_;
};

}  // namespace fetcher

#endif  // FETCHER_SOURCE_REGISTERED_FILES_H_
