#include <cerrno>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "cachecore/parse_text.h"
#include "cli/command.h"
#include "cli/deadline.h"
#include "cli/instance_control.h"
#include "cli/upgrade.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

struct UpgradeOptions {
  InstanceOptions instance;
  std::string timeout = "30s";
};

Result<UpgradeReport> UpgradeLocked(const Instance& instance, std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(RequireRoot("upgrading an instance"));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, Deadline(timeout)));
  return Upgrade(instance, timeout);
}

int RunUpgrade(const UpgradeOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  Result<cachecore::Duration> timeout = cachecore::ParseDuration(options.timeout);
  if (!timeout.ok()) return Fail(std::move(timeout).status().WithContext("--timeout"), kExitUsage);
  const Result<UpgradeReport> report =
      UpgradeLocked(*instance, std::chrono::duration_cast<std::chrono::milliseconds>(*timeout));
  if (!report.ok()) return Fail(report.status());
  std::cout << "holdfastd: pid " << report->old_daemon.pid << " version "
            << report->old_daemon.version << " -> pid " << report->new_daemon.pid << " version "
            << report->new_daemon.version << ", pause " << report->pause.count() << " ms\n";
  if (report->old_fetcher > 0) {
    std::cout << "holdfast-fetcherd: pid " << report->old_fetcher << " -> pid "
              << report->new_fetcher << "\n";
  }
  return kExitOk;
}

}  // namespace

void AddUpgrade(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<UpgradeOptions>();
  app->add_option("--timeout", options->timeout,
                  "How long the new programs may take to serve (default: 30s)")
      ->type_name("TIME");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunUpgrade(*options); });
}

}  // namespace cli
