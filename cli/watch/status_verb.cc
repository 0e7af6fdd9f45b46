#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cli/command.h"
#include "host/service/status_check.h"
#include "host/service/status_report.h"
#include "host/watch/status_watch.h"
#include "host/watch/watch_screen.h"

namespace cli {
namespace {

using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::WithoutControls;
using host::CheckRoot;
using host::CheckStatus;
using host::DefaultRoot;
using host::GatherStatus;
using host::Health;
using host::Instance;
using host::RunRoot;
using host::StatusCheck;
using host::StatusReport;
using host::StatusToJson;
using host::StatusToText;

struct StatusOptions {
  std::string root = DefaultRoot();
  std::string instance;  // "": all.
  bool json = false;
  bool check = false;
  std::optional<double> watch_s;
};

// Whether this user could be told anything.
Status CheckIsKnown(const std::string& root, const std::vector<StatusReport>& reports) {
  const bool is_known = std::all_of(reports.begin(), reports.end(),
                                    [](const StatusReport& report) { return report.is_known; });
  const std::string run_root = RunRoot(root);
  const bool can_list = access(run_root.c_str(), R_OK | X_OK) == 0 || errno != EACCES;
  if (is_known && can_list) return {};
  return Status(EACCES, "the state of the instances is not known without root; use sudo");
}

// Also without files: one that lives can have lost them.
bool IsThere(const StatusReport& report) {
  return report.IsRunning() || !report.left_over.empty() || !report.mounts.empty();
}

int PrintCheck(const StatusCheck& check) {
  std::cout << check.line << "\n";
  return EndOutput(static_cast<int>(check.health), kExitNotKnown);
}

int FailStatus(const StatusOptions& options, const Status& status) {
  if (options.check)
    return PrintCheck({Health::kNotKnown, "NOT KNOWN: " + WithoutControls(status.message())});
  return Fail(status, status.error() == EINVAL ? kExitUsage : kExitFailed);
}

int RunCheck(const StatusOptions& options, const std::vector<StatusReport>& reports) {
  const StatusCheck check = CheckStatus(reports, !options.instance.empty());
  const Status known = CheckIsKnown(options.root, reports);
  // There may be others.
  if (check.health == Health::kFine && !known.ok()) return FailStatus(options, known);
  return PrintCheck(check);
}

// The named instance, or all that there are now.
Result<std::vector<Instance>> InstancesOf(const StatusOptions& options) {
  if (options.instance.empty()) return Instance::List(options.root);
  ASSIGN_OR_RETURN(Instance instance, Instance::Make(options.root, options.instance));
  return std::vector<Instance>{std::move(instance)};
}

std::vector<StatusReport> ReportsOf(const std::vector<Instance>& instances) {
  std::vector<StatusReport> reports;
  for (const Instance& instance : instances) reports.push_back(GatherStatus(instance));
  return reports;
}

int RunWatch(const StatusOptions& options) {
  cachecore::CatchStopSignals();
  host::StatusWatch watch(/*is_named=*/!options.instance.empty());
  host::WatchScreen screen;
  const std::chrono::duration<double> interval(*options.watch_s);
  do {
    // Those that come meanwhile are shown, too.
    const Result<std::vector<Instance>> instances = InstancesOf(options);
    if (!instances.ok()) return Fail(instances.status());
    const std::vector<StatusReport> reports = ReportsOf(*instances);
    const Status shown = screen.Show(watch.Frame(reports, cachecore::Clock::Monotonic().Now(),
                                                 std::time(nullptr), screen.size()));
    if (!shown.ok()) return Fail(shown);
  } while (screen.Pause(std::chrono::duration_cast<cachecore::Duration>(interval)));
  return kExitOk;
}

int RunStatus(const StatusOptions& options) {
  if (const Status root = CheckRoot(options.root); !root.ok()) return FailStatus(options, root);
  const Result<std::vector<Instance>> listed = InstancesOf(options);
  if (!listed.ok()) return FailStatus(options, listed.status());
  const std::vector<Instance>& instances = *listed;
  const std::vector<StatusReport> reports = ReportsOf(instances);
  if (!options.instance.empty() && !IsThere(reports.front())) {
    const Status status = instances.front().CheckIsKnown();
    // What this user may not list can't be told to be missing.
    if (!status.ok() && CheckIsKnown(options.root, reports).ok()) {
      return FailStatus(options, status);
    }
  }
  if (options.check) return RunCheck(options, reports);
  if (options.watch_s) {
    const Status known = CheckIsKnown(options.root, reports);
    return known.ok() ? RunWatch(options) : Fail(known);
  }
  if (options.json) {
    std::cout << RecordText(StatusToJson(reports), 2) << "\n";
  } else {
    std::cout << StatusToText(reports, std::time(nullptr));
  }
  const Status known = CheckIsKnown(options.root, reports);
  return known.ok() ? kExitOk : Fail(known);
}

}  // namespace

void AddStatus(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<StatusOptions>();
  app->add_flag("--json", options->json, "Print JSON");
  app->add_flag("--check", options->check,
                "Print one line; the exit code is 0 fine, 1 degraded, 2 not serving, 3 not known "
                "or wrong usage")
      ->excludes("--json");
  app->add_option("--watch", options->watch_s,
                  "Redraw one screen every so many seconds (default: 2)")
      ->expected(0, 1)
      ->default_str("2")
      ->check(CLI::Range(0.1, 3600.0))
      ->excludes("--json")
      ->excludes("--check")
      ->type_name("SECONDS");
  app->add_option("--instance", options->instance, "Only this instance")->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunStatus(*options); });
}

}  // namespace cli
