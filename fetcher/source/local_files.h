// LocalFiles: what the fetcher reads of this machine's disks, with rights that are not its own.
//
// Model    opens by itself what it may; asks the broker, root's half of this program, for the rest.
//          A source's files are opened as it registered them, by either half.  Without sources, as
//          in tests, paths are opened as they are.
// Errors   those of RegisteredFiles and, for files of secrets, of ReadSecretFile; EAGAIN: the
//          broker has not answered within kPatience; ECONNRESET: it has ended.
// Threads  thread-safe.
// Owns     the connection to the broker.
// See      fetcher/source/file_broker.h

#ifndef FETCHER_SOURCE_LOCAL_FILES_H_
#define FETCHER_SOURCE_LOCAL_FILES_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "fetcher/source/registered_files.h"

namespace fetcher {

class LocalFiles {
 public:
  static constexpr std::chrono::seconds kPatience{5};
  static constexpr std::chrono::seconds kCertificatesAge{10};

  LocalFiles() : registered_(), broker_() {}
  // `broker`: invalid where our own rights must do.
  LocalFiles(RegisteredFiles registered, cachecore::UniqueFd broker)
      : registered_(std::move(registered)), broker_(std::move(broker)) {}
  // One without sources and broker.
  static const LocalFiles& Plain();

  cachecore::Result<SourceConfig> ReadSource(const std::string& volume) const;
  // An object, as `volume` has registered it.
  cachecore::Result<cachecore::UniqueFd> OpenObject(const std::string& volume,
                                                    const LocalFile& file) const;
  // `what` names the kind of file, as in "client key".
  cachecore::Result<std::string> ReadSecret(const std::string& path, const std::string& what) const;
  // One that is no secret.
  cachecore::Result<std::string> ReadPublic(const std::string& path, const std::string& what) const;
  // A file of authorities, as it was at most kCertificatesAge ago; "" when it can't be had.
  std::string Certificates(const std::string& path) const;
  // A path of the daemon's socket at `device`, good as long as *keep is open.
  cachecore::Result<std::string> DevicePath(const std::string& device,
                                            cachecore::UniqueFd* keep) const;

  // This process's log, once more.
  cachecore::Result<cachecore::UniqueFd> OpenLog(const std::string& path) const;

  // Hung up when the broker has ended: this process must end too.  -1 without one.
  int broker_fd() const { return broker_.get(); }

 private:
  cachecore::Result<cachecore::UniqueFd> OpenFile(const std::string& path) const;

  struct Text {
    std::string text;
    cachecore::Duration read_at{0};
  };

  const std::optional<RegisteredFiles> registered_;
  const cachecore::UniqueFd broker_;
  mutable cachecore::Mutex mu_;
  mutable std::map<std::string, Text> certificates_ GUARDED_BY(mu_);  // By path.
};

}  // namespace fetcher

#endif  // FETCHER_SOURCE_LOCAL_FILES_H_
