// holdfastd: the FUSE server and the engine in one process.

#include <gflags/gflags.h>
#include <glog/logging.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/environment/log_reopening.h"
#include "cachecore/logging/journal_log.h"
#include "cachecore/store/rocksdb_metadata_store.h"
#include "cachecore/system/process_limits.h"
#include "cachecore/system/program_help.h"
#include "fusefs/daemon.h"
#include "fusefs/flags.h"
#include "fusefs/service/fd_store.h"
#include "fusefs/state_check.h"

DECLARE_bool(list_fault_points);
DECLARE_string(fault_file);

namespace {

// RocksDB's threads stay, and a signal that one of them does not block would end the daemon at once,
// without its last sync.
void WarmUp() {
  sigset_t signals, before;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, &before);
  cachecore::WarmUpRocksDb();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  gflags::SetUsageMessage(
      "holdfastd --cache-dir=DIR --run-dir=DIR [options]\n"
      "Serves cached objects of remote images by FUSE; missing ranges wait for a fetcher.\n"
      "Most people start it with `holdfast mount`.");
  gflags::SetVersionString(HOLDFAST_VERSION);
  FLAGS_logtostderr = true;
  gflags::ParseCommandLineNonHelpFlags(&argc, &argv, true);
  if (cachecore::PrintHelpIfAsked("fusefs/")) return 0;
  if (FLAGS_list_fault_points) {
    cachecore::ListFaultPoints(cachecore::FaultProgram::kDaemon, std::cout);
    return 0;
  }
  google::InitGoogleLogging(argv[0]);
  const cachecore::JournalLog journal("holdfastd");
  if (argc > 1) {
    std::fprintf(stderr, "holdfastd: unexpected argument \"%s\"; see --help\n", argv[1]);
    return 2;
  }
  const cachecore::Status limits = cachecore::RaiseProcessLimits();
  if (!limits.ok()) {
    std::fprintf(stderr, "holdfastd: %s\n", limits.message().c_str());
    return 1;
  }
  const auto config = fusefs::ConfigFromFlags();
  if (!config.ok()) {
    std::fprintf(stderr, "holdfastd: %s\n", config.status().message().c_str());
    return 2;
  }
  if (fusefs::IsFlagCheckAsked()) return 0;
  if (fusefs::IsStateCheckAsked()) {
    const auto checked = fusefs::CheckState(*config, fusefs::RunningDaemon());
    std::FILE* const out = checked.ok() ? stdout : stderr;
    const std::string& text = checked.ok() ? *checked : checked.status().message();
    std::fprintf(out, "holdfastd %s: %s\n", HOLDFAST_VERSION, text.c_str());
    return checked.ok() ? 0 : 1;
  }
  cachecore::ReopenLogOnHangup(cachecore::LogFilePath());
  fusefs::FdStore stored;
  if (stored.is_spare()) {
    WarmUp();
    const cachecore::Status turn = stored.AwaitTurn();
    if (turn.error() == ECONNRESET) return 0;
    if (!turn.ok()) {
      std::fprintf(stderr, "holdfastd: %s\n", turn.message().c_str());
      return 1;
    }
  }
  const cachecore::Status armed = cachecore::ArmFaultPoint(FLAGS_fault_file);
  if (!armed.ok()) {
    std::fprintf(stderr, "holdfastd: %s\n", armed.message().c_str());
    return 2;
  }
  auto daemon = fusefs::Daemon::Start(*config, std::move(stored));
  if (!daemon.ok()) {
    std::fprintf(stderr, "holdfastd: %s\n", daemon.status().message().c_str());
    return 1;
  }
  return (*daemon)->Run();
}
