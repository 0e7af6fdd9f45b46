// holdfast-injectd: carries out the injections that holdfastd sends, one after the other.

#include <gflags/gflags.h>
#include <glog/logging.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/logging/journal_log.h"
#include "cachecore/system/program_help.h"
#include "fusefs/inject/injection.h"

DEFINE_string(fault_file, "",
              "file that arms a fault point once: NAME N exit|block|error (for tests)");

namespace {

// A thread that does not stop costs its OPEN a further try, and the others no more than this.
constexpr int kPatienceMs = 2000;

// Waits for a change of a thread that we trace.  Ends this process, and with it the tracing, when
// none comes or holdfastd is gone.
void AwaitChildSignal(int signals) {
  pollfd fds[2] = {{signals, POLLIN, 0}, {fusefs::kInjectionSocket, POLLRDHUP, 0}};
  const int ready = poll(fds, 2, kPatienceMs);
  if (ready < 0 && errno == EINTR) return;
  if (ready <= 0 || fds[1].revents != 0) {
    if (ready == 0) LOG(ERROR) << "a thread that reads the cachefiles device does not stop";
    _exit(1);
  }
  signalfd_siginfo info;
  (void)!read(signals, &info, sizeof(info));
}

}  // namespace

int main(int argc, char** argv) {
  gflags::SetUsageMessage(
      "holdfast-injectd\n"
      "Gives programs without the preloaded library the descriptors of the cachefiles device.\n"
      "holdfastd starts it.");
  gflags::SetVersionString(HOLDFAST_VERSION);
  FLAGS_logtostderr = true;
  gflags::ParseCommandLineNonHelpFlags(&argc, &argv, true);
  if (cachecore::PrintHelpIfAsked("fusefs/inject/")) return 0;
  google::InitGoogleLogging(argv[0]);
  const cachecore::JournalLog journal("holdfast-injectd");
  int type = 0;
  socklen_t size = sizeof(type);
  if (argc > 1 || getsockopt(fusefs::kInjectionSocket, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      type != SOCK_SEQPACKET) {
    std::fprintf(stderr, "holdfast-injectd is started by holdfastd\n");
    return 2;
  }
  const cachecore::Status armed = cachecore::ArmFaultPoint(FLAGS_fault_file);
  if (!armed.ok()) {
    std::fprintf(stderr, "holdfast-injectd: %s\n", armed.message().c_str());
    return 2;
  }
  // It ends with holdfastd, before the next one looks at the threads that have jobs.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd peer = {fusefs::kInjectionSocket, POLLRDHUP, 0};
  if (poll(&peer, 1, 0) != 0) return 1;  // holdfastd died before that call.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const cachecore::UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  PCHECK(signals.valid());
  fusefs::InjectionJob job;
  while (recv(fusefs::kInjectionSocket, &job, sizeof(job), 0) ==
         static_cast<ssize_t>(sizeof(job))) {
    fusefs::Inject(
        job, [&signals] { AwaitChildSignal(signals.get()); },
        [](const fusefs::InjectionReport& report) {
          if (send(fusefs::kInjectionSocket, &report, sizeof(report), MSG_NOSIGNAL) < 0) _exit(1);
        });
  }
  return 0;
}
