// FdStore: descriptors that outlive this process, kept by systemd or `holdfast supervise`.
//
// Model    sd_notify's FDSTORE protocol.  What an earlier process stored comes back by name at
//          start; stored descriptors are not polled by the keeper (FDPOLL=0: a watcher of /dev/fuse
//          would be woken at each request).  Without $NOTIFY_SOCKET there is no store and Store
//          says so. A process started as a spare finds only a socket there, and the rest with
//          AwaitTurn.
//          The process keeps a copy of each stored descriptor and lists it, so that a keeper that
//          has lost its own can have it again (cachecore/environment/descriptor_table.h).
// Errors   the keeper itself never answers; Store waits for its barrier, so that success means that
//          the message was handled.
// Threads  thread-compatible; Store and Remove from any thread.
// Owns     the descriptors that came back, until they are taken.
// See      docs/recovery.md; sd_notify(3), sd_listen_fds(3).

#ifndef FUSEFS_SERVICE_FD_STORE_H_
#define FUSEFS_SERVICE_FD_STORE_H_

#include <map>
#include <memory>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/descriptor_table.h"

namespace fusefs {

class FdStore {
 public:
  // Takes over what $LISTEN_FDS announces; clears the variables.
  FdStore();

  bool available() const { return available_; }
  bool is_spare() const { return returned_.count("spare") > 0; }
  // Says that we are fit, and waits until we are to go on for a daemon that has died.  ECONNRESET:
  // we never shall be.  REQUIRES: is_spare().
  cachecore::Status AwaitTurn();
  // A descriptor that came back under `name`; invalid if none did.
  cachecore::UniqueFd Take(const std::string& name);
  // The same, which stays here; -1 if none did.
  int Find(const std::string& name) const;
  // Stores a duplicate.  ENOTCONN without a service manager that keeps descriptors.
  cachecore::Status Store(const std::string& name, int fd);
  void Remove(const std::string& name);
  // Says READY=1.
  void SayReady();

 private:
  void ListReturned();

  const bool available_;
  std::map<std::string, cachecore::UniqueFd> returned_;
  std::unique_ptr<cachecore::DescriptorTable> table_;  // Null: nobody would look for it.
};

}  // namespace fusefs

#endif  // FUSEFS_SERVICE_FD_STORE_H_
