#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/files.h"
#include "cli/status_report.h"

namespace cli {
namespace {

using cachecore::Result;

struct StatusOptions {
  std::string root = DefaultRoot();
  std::string instance;  // "": all.
  bool json = false;
};

int RunStatus(const StatusOptions& options) {
  std::vector<Instance> instances = Instance::List(options.root);
  if (!options.instance.empty()) {
    Result<Instance> instance = Instance::Make(options.root, options.instance);
    if (!instance.ok()) return Fail(instance.status(), kExitUsage);
    instances = {std::move(instance).value()};
  }
  std::vector<StatusReport> reports;
  for (const Instance& instance : instances) reports.push_back(GatherStatus(instance));
  if (options.json) {
    std::cout << RecordText(StatusToJson(reports), 2) << "\n";
  } else {
    std::cout << StatusToText(reports, std::time(nullptr));
  }
  return kExitOk;
}

}  // namespace

void AddStatus(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<StatusOptions>();
  app->add_flag("--json", options->json, "Print JSON");
  app->add_option("--instance", options->instance, "Only this instance")->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunStatus(*options); });
}

}  // namespace cli
