#include <iostream>
#include <memory>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/parse_text.h"
#include "cli/command.h"
#include "host/instance/privileges.h"
#include "host/watch/slow_reads.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using host::Instance;
using host::InstanceOptions;

struct TraceOptions {
  InstanceOptions instance;
  std::string over = "200ms";
  bool json = false;
};

int RunTraceSlow(const TraceOptions& options) {
  cachecore::CatchStopSignals();
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<cachecore::Duration> over = cachecore::ParseDuration(options.over);
  if (!over.ok()) return Fail(Status(over.status()).WithContext("--over"), kExitUsage);
  if (const Status root = host::RequireRoot("following slow reads"); !root.ok()) return Fail(root);
  if (const Status known = instance->CheckIsKnown(); !known.ok()) return Fail(known);
  const Status followed =
      host::FollowSlowReads(*instance, {.over = *over, .json = options.json}, std::cout, std::cerr);
  return followed.ok() ? kExitOk : Fail(followed);
}

}  // namespace

void AddTrace(CLI::App* app, int* exit_code) {
  app->require_subcommand(1);
  const auto options = std::make_shared<TraceOptions>();
  CLI::App* slow = app->add_subcommand("slow", "Show reads that wait for long, and why");
  slow->add_option("--over", options->over, "Reads that wait for longer than this (default: 200ms)")
      ->type_name("TIME");
  slow->add_flag("--json", options->json, "Print a JSON object a line for each event");
  options->instance.AddTo(slow);
  slow->callback([options, exit_code] { *exit_code = RunTraceSlow(*options); });
}

}  // namespace cli
