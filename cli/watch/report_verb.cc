#include <iostream>
#include <memory>
#include <string>

#include "cli/command.h"
#include "host/instance/privileges.h"
#include "host/report/report_data.h"
#include "host/report/report_page.h"
#include "host/service/output_file.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using host::Instance;
using host::InstanceOptions;

struct ReportOptions {
  InstanceOptions instance;
  std::string mount_point;
  std::string output;
};

int RunReport(const ReportOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  if (const Status root = host::RequireRoot("a report"); !root.ok()) return Fail(root);
  if (const Status known = instance->CheckIsKnown(); !known.ok()) return Fail(known);
  const Result<host::ReportData> data = GatherReport(*instance, options.mount_point);
  if (!data.ok()) return Fail(data.status());
  const std::string page = ReportPage(*data);
  if (options.output == "-") {
    std::cout << page;
    return kExitOk;
  }
  const Status written = host::WriteOutput(options.output, page, 0600);
  return written.ok() ? kExitOk : Fail(written);
}

}  // namespace

void AddReport(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<ReportOptions>();
  app->add_option("MOUNTPOINT", options->mount_point,
                  "The mount to report on (default: the only one of the instance)");
  app->add_option("-o,--output", options->output,
                  "Write to this file, which is replaced as a whole; - is stdout")
      ->required()
      ->check(host::NotEmpty())
      ->type_name("FILE");
  options->instance.AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunReport(*options); });
}

}  // namespace cli
