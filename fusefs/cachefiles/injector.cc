#include "fusefs/cachefiles/injector.h"

#include <glog/logging.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "cachecore/system/process.h"
#include "cachecore/system/spawn.h"
#include "cachecore/system/subprocess.h"

namespace fusefs {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

static_assert(kInjectionSocket == cachecore::kPassedDescriptor);

// Its standard descriptors are ours: its messages go to this program's log.
Result<pid_t> Spawn(const std::string& program, const std::string& fault_flag, int socket) {
  cachecore::SpawnOptions options;
  options.argv = {program};
  if (!fault_flag.empty()) options.argv.push_back(fault_flag);
  options.input = STDIN_FILENO;
  options.output = STDOUT_FILENO;
  options.errors = STDERR_FILENO;
  options.passed = socket;
  return cachecore::Spawn(options);
}

}  // namespace

Status Injector::Start() {
  ASSIGN_OR_RETURN(const std::string program, cachecore::FindProgram("holdfast-injectd"));
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return Status::FromErrno(errno, "socketpair");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd its(ends[1]);
  const std::string flag = fault_file_.empty() ? "" : "--fault-file=" + fault_file_;
  ASSIGN_OR_RETURN(process_, Spawn(program, flag, its.get()));
  socket_ = std::move(ours);
  return Status();
}

Status Injector::Send(const InjectionJob& job) {
  if (!socket_.valid()) RETURN_IF_ERROR(Start());
  const ssize_t sent = send(socket_.get(), &job, sizeof(job), MSG_NOSIGNAL | MSG_DONTWAIT);
  // When it has died, the jobs that it had are lost, and so is this one.
  if (sent == static_cast<ssize_t>(sizeof(job)) || errno == EPIPE || errno == ECONNRESET) {
    return Status();
  }
  return Status::FromErrno(errno, "sending to holdfast-injectd");
}

std::optional<InjectionReport> Injector::Receive() {
  InjectionReport report;
  const ssize_t got =
      socket_.valid() ? recv(socket_.get(), &report, sizeof(report), MSG_DONTWAIT) : -1;
  if (got == static_cast<ssize_t>(sizeof(report))) return report;
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) End();
  return std::nullopt;
}

void Injector::End() {
  if (process_ == 0) return;
  socket_.Reset();
  kill(process_, SIGKILL);
  cachecore::ReapChild(process_);
  process_ = 0;
}

}  // namespace fusefs
