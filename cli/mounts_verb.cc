#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/status.h"
#include "cli/command.h"
#include "host/instance/instance_options.h"
#include "host/instance/privileges.h"
#include "host/instance/systemd_unit.h"
#include "host/mount/saved_mounts.h"

namespace cli {
namespace {

using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using cachecore::StopSignalled;
using cachecore::WaitUntil;
using cachecore::WithoutControls;
using host::Instance;
using host::ListSaved;
using host::ParseTimeout;
using host::RestoreEnd;
using host::RestoreMount;
using host::RestoreMounts;
using host::SavedMountState;

constexpr std::chrono::seconds kRetryPause{10};
// Of --until-mounted, so that many origins that do not answer hold up no boot.
constexpr std::chrono::minutes kFirstTry{2};
constexpr std::chrono::hours kNoEnd{24 * 365};

struct MountsOptions {
  std::string root = host::DefaultRoot();
  std::string instance;  // "": all.
  std::string mount_point;
  bool json = false;
  bool restore = false;
  bool until_mounted = false;
  bool unmount = false;
  std::string timeout = "30s";
};

int PrintList(const MountsOptions& options) {
  const Status rights = host::RequireRoot("listing persistent mounts");
  if (!rights.ok()) return Fail(rights);
  const Result<std::vector<SavedMountState>> mounts = ListSaved(options.root, options.instance);
  if (!mounts.ok()) return Fail(mounts.status());
  std::cout << (options.json ? RecordText(host::SavedToJson(*mounts), 2) + "\n"
                             : host::SavedToText(*mounts));
  return kExitOk;
}

int RestoreOne(const MountsOptions& options, std::chrono::milliseconds timeout) {
  const Result<Instance> instance =
      Instance::Make(options.root, options.instance.empty() ? "default" : options.instance);
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Status status = RestoreMount(*instance, options.mount_point, timeout);
  return status.ok() ? kExitOk : Fail(status);
}

// A cause is said once until it changes.
void Say(const RestoreEnd& end, std::map<std::string, std::string>* said) {
  for (const auto& [point, why] : end.failed) {
    if (const auto before = said->find(point); before != said->end() && before->second == why) {
      continue;
    }
    std::cerr << "holdfast: " << point << " is not mounted again: " << WithoutControls(why) << "\n";
  }
  *said = end.failed;
}

int RestoreAll(const MountsOptions& options, std::chrono::milliseconds timeout) {
  std::map<std::string, std::string> said;
  for (bool is_first = true;; is_first = false) {
    const Deadline begin_until(is_first && options.until_mounted
                                   ? std::chrono::milliseconds(kFirstTry)
                                   : std::chrono::milliseconds(kNoEnd));
    const Result<RestoreEnd> end =
        RestoreMounts(options.root, options.instance, timeout, begin_until);
    if (!end.ok()) return Fail(end.status());
    if (is_first) {
      for (const std::string& bad : end->bad) {
        std::cerr << "holdfast: " << WithoutControls(bad) << "\n";
      }
    }
    Say(*end, &said);
    const bool is_done = end->failed.empty();
    if (options.until_mounted && is_first) {
      host::SayReady(is_done ? "all is mounted"
                             : std::to_string(end->failed.size()) + " mounts wait");
    }
    // A bad record gets no better, and has been named.
    if (is_done && options.until_mounted) return kExitOk;
    if (!options.until_mounted) return is_done && end->bad.empty() ? kExitOk : kExitFailed;
    const Status waited = WaitUntil([] { return false; }, Deadline(kRetryPause));
    if (StopSignalled()) return Fail(waited);
  }
}

int RunMounts(const MountsOptions& options) {
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  if (const Status root = host::CheckRoot(options.root); !root.ok()) return Fail(root, kExitUsage);
  if (!options.restore && !options.unmount) return PrintList(options);
  CatchStopSignals();
  if (options.unmount) {
    const Status done = host::UnmountSaved(options.root, options.instance, Deadline(*timeout));
    return done.ok() ? kExitOk : Fail(done);
  }
  return options.mount_point.empty() ? RestoreAll(options, *timeout)
                                     : RestoreOne(options, *timeout);
}

}  // namespace

void AddMounts(CLI::App* app, int* exit_code) {
  const auto options = std::make_shared<MountsOptions>();
  CLI::Option* const restore =
      app->add_flag("--restore", options->restore, "Mount what is not mounted, as after a reboot");
  app->add_option("MOUNTPOINT", options->mount_point, "Only this one, of --instance")
      ->type_name("")
      ->needs(restore);
  app->add_flag("--until-mounted", options->until_mounted,
                "Try again those that fail, until all are mounted")
      ->needs(restore);
  app->add_flag("--unmount", options->unmount, "Unmount them, as before a shutdown")
      ->excludes(restore);
  app->add_flag("--json", options->json, "Print JSON")->excludes(restore)->excludes("--unmount");
  app->add_option("--timeout", options->timeout,
                  "How long each mount may take; with --unmount, all together (default: 30s)")
      ->type_name("TIME");
  app->add_option("--instance", options->instance, "Only this instance")->type_name("NAME");
  app->add_option("--root", options->root,
                  "Where all instances' files are (default: $HOLDFAST_ROOT or /)")
      ->type_name("DIR");
  app->callback([options, exit_code] { *exit_code = RunMounts(*options); });
}

}  // namespace cli
