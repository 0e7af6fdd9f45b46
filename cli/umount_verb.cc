#include <memory>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cli/command.h"
#include "host/mount/umount_command.h"

namespace cli {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using host::CheckOptions;
using host::UmountChecked;
using host::UmountOptions;

int RunUmount(const UmountOptions& options) {
  const Result<std::chrono::milliseconds> waits = CheckOptions(options);
  if (!waits.ok()) return PrintEnd(waits.status(), kExitUsage, options.json);
  return PrintEnd(UmountChecked(options, Deadline(*waits)), kExitFailed, options.json);
}

}  // namespace

void AddUmount(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<UmountOptions>();
  options->AddTo(app);
  app->callback([options, exit_code] { *exit_code = RunUmount(*options); });
}

}  // namespace cli
