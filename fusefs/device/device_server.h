// DeviceServer: the socket that fetchers attach to, and the one session at a time on it.
//
// Model    a listening SOCK_SEQPACKET socket; a connection is one open of the device.  The first
//          gets HELLO and is attached as a new generation; others get HELLO with -EBUSY, strangers
//          with -EPERM, and are closed.  When the attached connection hangs up the fetcher is
//          detached.
// Errors   whatever a peer sends gets an errno for an answer; a peer that breaks the framing or
//          does not read its answers loses its own connection, nothing more.
// Threads  one thread does it all; Wake and the queries may be called from any.
// Owns     the listening socket, the session's socket.
// Crash    nothing to keep: the peer sees the hang-up and attaches to the next daemon.
// See      docs/protocol.md.

#ifndef FUSEFS_DEVICE_DEVICE_SERVER_H_
#define FUSEFS_DEVICE_DEVICE_SERVER_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "fusefs/device/device_session.h"
#include "fusefs/service/watchdog.h"

namespace fusefs {

struct FetcherInfo {
  pid_t pid = 0;
  int64_t since_unix = 0;
  cachecore::Generation generation;
};

class DeviceServer {
 public:
  // `listener`: see ListenUnix.  `fetcher_uid`: the user that may attach, beside root and our own.
  static cachecore::Result<std::unique_ptr<DeviceServer>> Make(cachecore::UniqueFd listener,
                                                               uid_t fetcher_uid);
  ~DeviceServer();

  // `refuses`: each fetcher gets EBUSY, since another device serves this cache.
  void Start(cachecore::Cache* cache, bool refuses = false);
  // A message may have become deliverable.  Callable before Start.
  void Wake();
  // Ends the thread and closes the session.
  void Stop();

  // None while the attached one is dead, even if its connection is kept.
  std::optional<FetcherInfo> fetcher() EXCLUDES(mu_);
  // What the device thread is at.
  const WorkMark& mark() const { return mark_; }

 private:
  DeviceServer(cachecore::UniqueFd listener, uid_t fetcher_uid, cachecore::UniqueFd wake);

  void Run();
  void Accept();
  // Records the process that serves now, and watches for its death.
  void Introduce(pid_t pid, cachecore::Generation generation);
  void NoteDeath();
  void Detach();

  const cachecore::UniqueFd listener_;
  const uid_t fetcher_uid_;
  const cachecore::UniqueFd wake_;  // An eventfd.
  cachecore::Cache* cache_ = nullptr;
  bool refuses_ = false;
  std::optional<DeviceSession> session_;        // The device thread's.
  cachecore::UniqueFd fetcher_process_;         // A pidfd; the device thread's.
  cachecore::Duration accept_paused_until_{0};  // The device thread's.
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  WorkMark mark_;

  cachecore::Mutex mu_;
  std::optional<FetcherInfo> fetcher_ GUARDED_BY(mu_);
};

}  // namespace fusefs

#endif  // FUSEFS_DEVICE_DEVICE_SERVER_H_
