// Injector: holdfastd's end of holdfast-injectd.
//
// Model    the process is started for the first job, and again for the first one after its death.
//          Each job has a report; the jobs without one when the process ends are lost.
// Errors   Send: one sentence that names the program that could not be started.
// Threads  one.
// Owns     the process, which ends with the socket to it.
// Crash    the process ends when holdfastd does, and leaves no thread stopped.
// See      fusefs/inject/injection_job.h

#ifndef FUSEFS_CACHEFILES_INJECTOR_H_
#define FUSEFS_CACHEFILES_INJECTOR_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "fusefs/inject/injection_job.h"

namespace fusefs {

class Injector {
 public:
  // `fault_file`: of holdfast-injectd, for tests; "" is none.
  explicit Injector(std::string fault_file) : fault_file_(std::move(fault_file)) {}
  ~Injector() { End(); }
  Injector(const Injector&) = delete;
  Injector& operator=(const Injector&) = delete;

  cachecore::Status Send(const InjectionJob& job);
  // For poll(2); -1 while no process runs.
  int fd() const { return socket_.get(); }
  // Nullopt: there is none now, or the process has ended.
  std::optional<InjectionReport> Receive();
  // Kills the process, if one runs.
  void End();

 private:
  cachecore::Status Start();

  const std::string fault_file_;
  cachecore::UniqueFd socket_;
  pid_t process_ = 0;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_INJECTOR_H_
