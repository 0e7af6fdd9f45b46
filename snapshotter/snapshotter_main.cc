// holdfast-snapshotter: flags to options, a gRPC server on a Unix socket, signals to its end.

#include <gflags/gflags.h>
#include <glog/logging.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "cachecore/logging/journal_log.h"
#include "cachecore/system/process_limits.h"
#include "cachecore/system/program_help.h"
#include "snapshotter/flags.h"
#include "snapshotter/image_mounter.h"
#include "snapshotter/snapshot_service.h"
#include "snapshotter/snapshot_store.h"

namespace {

using cachecore::Result;
using cachecore::Status;

// For calls that go on when we are to end.
constexpr std::chrono::seconds kShutdownGrace{5};
// A Prepare holds a thread while a registry answers; so many may wait.
constexpr int kThreadsMax = 256;

int Fail(const Status& status, int exit_code) {
  std::fprintf(stderr, "holdfast-snapshotter: %s\n", status.message().c_str());
  return exit_code;
}

// Only root may speak to it, as with containerd's own socket.
Result<std::unique_ptr<grpc::Server>> Listen(const std::string& socket, grpc::Service* service) {
  const std::string directory = std::filesystem::path(socket).parent_path().string();
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return Status::FromErrno(error.value(), "make directory " + directory);
  grpc::ResourceQuota quota;
  quota.SetMaxThreads(kThreadsMax);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  int bound = 0;
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(service);
  const mode_t mask = umask(0177);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  umask(mask);
  if (!server || bound == 0) return Status(EADDRNOTAVAIL, "can't listen on " + socket);
  return server;
}

int Serve(const snapshotter::Options& options, const sigset_t& stop_signals) {
  snapshotter::HoldfastMounter mounter(options.holdfast);
  const auto store = snapshotter::SnapshotStore::Open(options.root, &mounter);
  if (!store.ok()) return Fail(store.status(), 1);
  snapshotter::SnapshotService service(store->get());
  const auto server = Listen(options.socket, &service);
  if (!server.ok()) return Fail(server.status(), 1);
  LOG(INFO) << "serving on " << options.socket;
  sd_notify(0, "READY=1");
  int signal = 0;
  sigwait(&stop_signals, &signal);
  LOG(INFO) << "ending: signal " << signal;
  sd_notify(0, "STOPPING=1");
  (*server)->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  gflags::SetUsageMessage(
      "holdfast-snapshotter [options]\n"
      "A containerd snapshotter: layers of Holdfast images are mounted, not downloaded.\n"
      "See holdfast-snapshotter(8) for containerd's configuration.");
  gflags::SetVersionString(HOLDFAST_VERSION);
  FLAGS_logtostderr = true;
  gflags::ParseCommandLineNonHelpFlags(&argc, &argv, true);
  if (cachecore::PrintHelpIfAsked("snapshotter/")) return 0;
  google::InitGoogleLogging(argv[0]);
  const cachecore::JournalLog journal("holdfast-snapshotter");
  if (argc > 1) {
    return Fail(Status(EINVAL, std::string("unexpected argument \"") + argv[1] + "\"; see --help"),
                2);
  }
  const Result<snapshotter::Options> options = snapshotter::OptionsFromFlags();
  if (!options.ok()) return Fail(options.status(), 2);
  cachecore::RaiseDescriptorLimit();
  // Before any thread: all inherit it.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);
  return Serve(*options, stop_signals);
}
