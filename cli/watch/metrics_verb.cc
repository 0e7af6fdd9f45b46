#include <cerrno>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "host/service/metrics.h"
#include "host/service/output_file.h"
#include "host/service/status_check.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using host::CheckRoot;
using host::Counts;
using host::DefaultRoot;
using host::GatherStatus;
using host::Instance;
using host::MetricsText;
using host::StatusReport;
using host::WriteOutput;

struct MetricsOptions {
  std::string root = DefaultRoot();
  std::string instance;  // "": all.
  std::string output = "-";
};

int RunMetrics(const MetricsOptions& options) {
  const bool is_named = !options.instance.empty();
  const Status root = CheckRoot(options.root);
  if (!root.ok()) return Fail(root, root.error() == EINVAL ? kExitUsage : kExitFailed);
  std::vector<Instance> instances = Instance::List(options.root);
  if (is_named) {
    const Result<Instance> instance = Instance::Make(options.root, options.instance);
    if (!instance.ok()) return Fail(instance.status(), kExitUsage);
    const Status is_known = instance->CheckIsKnown();
    if (!is_known.ok()) return Fail(is_known);
    instances = {*instance};
  }
  std::vector<StatusReport> reports;
  for (const Instance& instance : instances) {
    StatusReport report = GatherStatus(instance);
    if (!report.is_known) {
      return Fail(Status(EACCES, "the metrics of instance " + instance.name() +
                                     " are not known without root; use sudo"));
    }
    if (Counts(report, is_named)) reports.push_back(std::move(report));
  }
  const std::string text = MetricsText(reports);
  if (options.output == "-") {
    std::cout << text;
    return kExitOk;
  }
  const Status written =
      WriteOutput(options.output, text, 0644);  // For the monitoring system's user.
  return written.ok() ? kExitOk : Fail(written);
}

}  // namespace

void AddMetrics(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<MetricsOptions>();
  app->add_option("-o,--output", options->output,
                  "Write to this file, which is replaced as a whole (default: -, stdout)")
      ->check(host::NotEmpty())
      ->type_name("FILE");
  app->add_option("--instance", options->instance, "Only this instance")->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunMetrics(*options); });
}

}  // namespace cli
