#include <cerrno>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "cachecore/base/deadline.h"
#include "cli/command.h"
#include "host/instance/privileges.h"
#include "host/service/instance_control.h"
#include "host/service/upgrade.h"

namespace cli {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using host::Instance;
using host::InstanceOptions;
using host::LockInstance;
using host::ParseTimeout;
using host::RequireRoot;
using host::Upgrade;
using host::UpgradeReport;

struct UpgradeOptions {
  InstanceOptions instance;
  std::string timeout = "30s";
};

Result<UpgradeReport> UpgradeLocked(const Instance& instance, const Deadline& deadline) {
  RETURN_IF_ERROR(RequireRoot("upgrading an instance"));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, deadline));
  return Upgrade(instance, deadline);
}

int RunUpgrade(const UpgradeOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  const Result<UpgradeReport> report = UpgradeLocked(*instance, Deadline(*timeout));
  if (!report.ok()) return Fail(report.status());
  std::cout << "holdfastd: pid " << report->old_daemon.pid << " version "
            << report->old_daemon.version << " -> pid " << report->new_daemon.pid << " version "
            << report->new_daemon.version << ", pause " << report->pause.count() << " ms\n";
  if (report->old_fetcher > 0) {
    std::cout << "holdfast-fetcherd: pid " << report->old_fetcher << " -> pid "
              << report->new_fetcher << "\n";
  }
  std::cout << "holdfast supervise: pid " << report->supervisor.pid;
  if (report->old_supervisor_version.empty()) {
    std::cout << " stays the old program until the instance is stopped\n";
    if (!report->why_old_supervisor.empty()) {
      std::cerr << "holdfast: the supervisor does not exchange its program: "
                << report->why_old_supervisor << "\n";
    }
  } else {
    std::cout << " version " << report->old_supervisor_version << " -> version "
              << report->supervisor.version << "\n";
  }
  return kExitOk;
}

}  // namespace

void AddUpgrade(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<UpgradeOptions>();
  app->add_option(
         "--timeout", options->timeout,
         "How long it may take as a whole, waits for other commands included (default: 30s)")
      ->type_name("TIME");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunUpgrade(*options); });
}

}  // namespace cli
