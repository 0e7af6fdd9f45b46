#include <cerrno>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/system/files.h"
#include "cli/command.h"
#include "host/service/metrics.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::WriteFileAtomically;
using host::DefaultRoot;
using host::GatherStatus;
using host::Instance;
using host::MetricsText;
using host::StatusReport;

constexpr mode_t kMode = 0644;  // For the monitoring system's user.

struct MetricsOptions {
  std::string root = DefaultRoot();
  std::string instance;  // "": all.
  std::string output;    // "": stdout.
};

int RunMetrics(const MetricsOptions& options) {
  std::vector<Instance> instances = Instance::List(options.root);
  if (!options.instance.empty()) {
    const Result<Instance> instance = Instance::Make(options.root, options.instance);
    if (!instance.ok()) return Fail(instance.status(), kExitUsage);
    const Status is_known = instance->CheckIsKnown();
    if (!is_known.ok()) return Fail(is_known);
    instances = {*instance};
  }
  std::vector<StatusReport> reports;
  for (const Instance& instance : instances) {
    reports.push_back(GatherStatus(instance));
    if (!reports.back().is_known) {
      return Fail(Status(EACCES, "the metrics of instance " + instance.name() +
                                     " are not known without root; use sudo"));
    }
  }
  const std::string text = MetricsText(reports);
  if (options.output.empty()) {
    std::cout << text;
    return kExitOk;
  }
  const Status written = WriteFileAtomically(options.output, text, kMode);
  return written.ok() ? kExitOk : Fail(written);
}

}  // namespace

void AddMetrics(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<MetricsOptions>();
  app->add_option("-o,--output", options->output,
                  "Write to this file, which is replaced as a whole (default: stdout)")
      ->type_name("FILE");
  app->add_option("--instance", options->instance, "Only this instance")->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunMetrics(*options); });
}

}  // namespace cli
