#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cli/command.h"
#include "host/service/status_check.h"
#include "host/service/status_report.h"

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

int RunStatus(const StatusOptions& options) {
  if (const Status root = CheckRoot(options.root); !root.ok()) return FailStatus(options, root);
  std::vector<Instance> instances = Instance::List(options.root);
  if (!options.instance.empty()) {
    Result<Instance> instance = Instance::Make(options.root, options.instance);
    if (!instance.ok()) return FailStatus(options, instance.status());
    instances = {std::move(instance).value()};
  }
  std::vector<StatusReport> reports;
  for (const Instance& instance : instances) reports.push_back(GatherStatus(instance));
  if (!options.instance.empty() && !IsThere(reports.front())) {
    const Status status = instances.front().CheckIsKnown();
    // What this user may not list can't be told to be missing.
    if (!status.ok() && CheckIsKnown(options.root, reports).ok()) {
      return FailStatus(options, status);
    }
  }
  if (options.check) return RunCheck(options, reports);
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
  app->add_option("--instance", options->instance, "Only this instance")->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunStatus(*options); });
}

}  // namespace cli
