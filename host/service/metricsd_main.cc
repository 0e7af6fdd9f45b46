// holdfast-metricsd: serves the metrics of one instance by HTTP.
//
// Its death costs nothing but the scrape that it was at; the supervisor, or systemd, starts it again.

#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "cachecore/environment/capabilities.h"
#include "cachecore/environment/log_reopening.h"
#include "cachecore/system/unix_listener.h"
#include "host/config/loopback_address.h"
#include "host/instance/instance_options.h"
#include "host/service/metrics.h"
#include "host/service/metrics_server.h"
#include "host/service/status_report.h"

namespace {

using cachecore::CapabilityBit;
using cachecore::Clock;
using cachecore::Duration;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using host::Instance;
using host::MetricsServer;
using host::MetricsSource;

constexpr int kTickMs = 1000;
// To look at the fetcher, which is another user's process, as `holdfast status` does.
constexpr uint64_t kCapabilities =
    CapabilityBit(CAP_DAC_READ_SEARCH) | CapabilityBit(CAP_SYS_PTRACE);
constexpr Duration kListenAgain = std::chrono::seconds(5);

int Fail(const Status& why) {
  std::fprintf(stderr, "holdfast-metricsd: %s\n", why.message().c_str());
  return 1;
}

// Its program was replaced by another version: the service manager starts that one.
bool IsReplaced() {
  char target[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", target, sizeof(target));
  return size > 0 && std::string(target, static_cast<size_t>(size)).ends_with(" (deleted)");
}

// The server on TCP, as soon as its port is free.
class LoopbackServer {
 public:
  LoopbackServer(std::string address, MetricsSource* source)
      : address_(std::move(address)), source_(source) {}

  void Tick() {
    const Duration now = Clock::Monotonic().Now();
    if (server_ != nullptr) return server_->EndOverdue();
    if (address_.empty() || now < again_) return;
    again_ = now + kListenAgain;
    Result<UniqueFd> listener = host::ListenOnLoopback(address_);
    Status status = listener.status();
    if (status.ok()) {
      auto server = MetricsServer::Start(std::move(*listener), source_);
      status = server.status();
      if (server.ok()) server_ = std::move(*server);
    }
    if (status.ok() || std::exchange(is_told_, true)) return;
    Fail(Status(status).WithContext("it is tried again every 5 s"));
  }

 private:
  const std::string address_;
  MetricsSource* const source_;
  std::unique_ptr<MetricsServer> server_;
  Duration again_ = Duration::zero();
  bool is_told_ = false;
};

int Serve(const Instance& instance, const std::string& address) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  cachecore::ReopenLogOnHangup(cachecore::LogFilePath());
  const UniqueFd stop(signalfd(-1, &set, SFD_CLOEXEC));
  MetricsSource source([&instance] { return host::MetricsText({host::GatherStatus(instance)}); });
  Result<UniqueFd> listener =
      cachecore::ListenUnix(instance.MetricsSocket(), SOCK_STREAM, geteuid());
  if (!listener.ok()) return Fail(listener.status());
  const auto server = MetricsServer::Start(std::move(*listener), &source);
  if (!server.ok()) return Fail(server.status());
  LoopbackServer tcp(address, &source);
  while (!IsReplaced()) {
    tcp.Tick();
    (*server)->EndOverdue();
    pollfd fds = {stop.get(), POLLIN, 0};
    if (poll(&fds, 1, kTickMs) > 0) break;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // Without its supervisor nobody would start it again, or end it.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  CLI::App app("Serves the metrics of one instance of Holdfast by HTTP.", "holdfast-metricsd");
  app.set_version_flag("--version", HOLDFAST_VERSION);
  host::InstanceOptions options;
  std::string address;
  options.AddTo(&app);
  app.add_option("--listen", address, "Serve this port of 127.0.0.1 or [::1], too")
      ->type_name("ADDRESS:PORT");
  CLI11_PARSE(app, argc, argv);
  const Result<Instance> instance = options.Make();
  if (!instance.ok()) return Fail(instance.status());
  if (!address.empty()) {
    if (const Status checked = host::CheckLoopback(address).WithContext("--listen");
        !checked.ok()) {
      return Fail(checked);
    }
  }
  uint64_t needed = kCapabilities;
  // For as long as it runs: a port that is taken is tried again.
  if (host::HasPortOfRoot(address)) needed |= CapabilityBit(CAP_NET_BIND_SERVICE);
  if (const Status kept = cachecore::KeepCapabilities(needed); !kept.ok()) return Fail(kept);
  return Serve(*instance, address);
}
