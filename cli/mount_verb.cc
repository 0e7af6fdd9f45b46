#include <memory>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cli/command.h"
#include "host/mount/mount_command.h"

namespace cli {
namespace {

using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::Result;
using host::MountOptions;
using host::MountParsed;
using host::ParsedMount;
using host::ParseMount;
using host::RepeatableOptions;

int RunMount(const MountOptions& options) {
  Result<ParsedMount> parsed = ParseMount(options);
  if (!parsed.ok()) return PrintEnd(parsed.status(), kExitUsage, options.json);
  CatchStopSignals();
  const Deadline deadline(parsed->request.timeout);
  return PrintEnd(MountParsed(&*parsed, deadline), kExitFailed, options.json);
}

}  // namespace

void AddMount(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<MountOptions>();
  options->AddTo(app);
  app->callback([app, options, exit_code] {
    if (options->persist) options->repeatable = RepeatableOptions(*app);
    *exit_code = RunMount(*options);
  });
}

}  // namespace cli
