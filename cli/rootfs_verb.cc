#include <cerrno>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cachecore/base/deadline.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/system/mount_table.h"
#include "cli/command.h"
#include "cli/rootfs_options.h"
#include "host/containers/rootfs.h"
#include "host/instance/privileges.h"
#include "host/mount/answering_paths.h"
#include "host/registries/image_reference.h"

namespace cli {

using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::FindMount;
using cachecore::MountEntry;
using cachecore::ReadMountTable;
using cachecore::RecordText;
using cachecore::Result;
using cachecore::Status;
using host::CheckBundleOptions;
using host::CheckRootfsName;
using host::CreateRootfs;
using host::Instance;
using host::InstanceOptions;
using host::kLockTimeoutText;
using host::ListRootfsRecords;
using host::MountRootfs;
using host::ParseImageReference;
using host::ParseTimeout;
using host::RegistryAccess;
using host::RemoveRootfs;
using host::RequireMountRights;
using host::RequireRoot;
using host::RootfsBundle;
using host::RootfsRecord;
using host::RootfsRequest;
using host::SweepRootfs;
using nlohmann::json;

// Repeated options take one value each: else one takes the image after it, and the command's "--".
void RootfsOptions::AddTo(CLI::App* app) {
  app->add_option("--upper", upper, "Keep what is written below this directory")->type_name("DIR");
  app->add_flag("--tmpfs", tmpfs, "Keep what is written in memory")->excludes("--upper");
  app->add_option("--env", bundle.env, "A variable of the environment; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app->add_option("--volume", bundle.volumes, "Show SRC at DST; repeatable")
      ->type_name("SRC:DST[:ro]")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app->add_option("--user", bundle.user, "Run as this user (default: the image's)")
      ->type_name("USER[:GROUP]");
  app->add_option("--net", bundle.net, "The network that it sees (default: host)")
      ->type_name("host|none")
      ->check(CLI::IsMember({"host", "none"}).description(""));
  app->add_option("--timeout", timeout, "How long to wait for the registry (default: 30s)")
      ->type_name("TIME");
  registry.AddTo(app);
  registry.AddMirrorTo(app);
  app->add_option("--ca-file", ca_file, "Trust the registry by this PEM file")->type_name("FILE");
  instance.AddTo(app);
}

Result<RootfsRequest> RootfsOptions::Make() const {
  ASSIGN_OR_RETURN(Instance made, instance.Make());
  ASSIGN_OR_RETURN(RegistryAccess access, registry.Make());
  if (!ca_file.empty()) access.ca_file = std::filesystem::absolute(ca_file).string();
  ASSIGN_OR_RETURN(const std::chrono::milliseconds waits, ParseTimeout(timeout));
  if (!name.empty()) RETURN_IF_ERROR(CheckRootfsName(name));
  RETURN_IF_ERROR(ParseImageReference(reference).status());
  RETURN_IF_ERROR(CheckBundleOptions(bundle));
  return RootfsRequest{std::move(made), name,  reference, std::move(access), upper, tmpfs,
                       false,           waits, bundle};
}

Status RootfsOptions::CheckAnswers(const RootfsRequest& request) const {
  return host::CheckArgumentsAnswer({reference, upper, ca_file}, Deadline(request.timeout));
}

namespace {

int RunRootfsCreate(const RootfsOptions& options) {
  const Result<RootfsRequest> request = options.Make();
  if (!request.ok()) return Fail(request.status(), kExitUsage);
  const Status allowed = RequireMountRights("making a root file system");
  if (!allowed.ok()) return Fail(allowed);
  CatchStopSignals();
  const Status answers = options.CheckAnswers(*request);
  if (!answers.ok()) return Fail(answers);
  const auto held = CreateRootfs(*request);
  if (!held.ok()) return Fail(held.status());
  std::cout << RootfsBundle(request->instance, request->name) << "\n";
  return kExitOk;
}

struct NamedRootfs {
  InstanceOptions instance;
  std::string name;
  std::string timeout = "30s";
  bool force = false;
  bool json = false;
};

using OnRootfs = std::function<Status(const Instance&, std::chrono::milliseconds timeout)>;

int RunOnRootfs(const NamedRootfs& options, const char* what, const OnRootfs& operation) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  const Status allowed = RequireRoot(what);
  if (!allowed.ok()) return Fail(allowed);
  CatchStopSignals();
  const Status status = operation(*instance, *timeout);
  return status.ok() ? kExitOk : Fail(status);
}

Status PrintRootfs(const Instance& instance, bool as_json, std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(SweepRootfs(instance, timeout));
  ASSIGN_OR_RETURN(const std::vector<MountEntry> table, ReadMountTable());
  json all = json::array();
  for (const RootfsRecord& record : ListRootfsRecords(instance)) {
    const std::string bundle = RootfsBundle(instance, record.name);
    const bool mounted = FindMount(table, bundle + "/rootfs") != nullptr;
    if (as_json) {
      all.push_back({{"name", record.name},
                     {"reference", record.reference},
                     {"manifest", record.manifest},
                     {"image", record.erofs_digest},
                     {"bundle", bundle},
                     {"upper", record.upper},
                     {"mounted", mounted}});
    } else {
      std::cout << record.name << "  " << (mounted ? "mounted" : "not mounted") << "  "
                << record.reference << "  " << bundle << "\n";
    }
  }
  if (as_json) std::cout << RecordText(all, 2) << "\n";
  return {};
}

void AddLockTimeout(CLI::App* verb, NamedRootfs* options) {
  options->timeout = kLockTimeoutText;
  verb->add_option("--timeout", options->timeout,
                   "How long to wait for another command on these (default: 60s)")
      ->type_name("TIME");
}

}  // namespace

void AddRootfs(CLI::App* app, int* exit_code) {
  app->require_subcommand(1);
  const auto create = std::make_shared<RootfsOptions>();
  CLI::App* verb = app->add_subcommand("create", "Make a root file system and a runtime bundle");
  verb->add_option("NAME", create->name, "What to call it")->required()->type_name("");
  verb->add_option("--image", create->reference, "oci://..., oci-layout:DIR[:TAG]")
      ->required()
      ->type_name("REF");
  create->AddTo(verb);
  verb->callback([create, exit_code] { *exit_code = RunRootfsCreate(*create); });

  const auto mount = std::make_shared<NamedRootfs>();
  verb = app->add_subcommand("mount", "Mount one that is not mounted, as after a reboot");
  verb->add_option("NAME", mount->name, "What it is called")->required()->type_name("");
  verb->add_option("--timeout", mount->timeout, "How long to wait for the origin (default: 30s)")
      ->type_name("TIME");
  mount->instance.AddTo(verb);
  verb->callback([mount, exit_code] {
    *exit_code = RunOnRootfs(*mount, "mounting", [&](const Instance& instance, auto timeout) {
      return MountRootfs(instance, mount->name, timeout);
    });
  });

  const auto remove = std::make_shared<NamedRootfs>();
  verb = app->add_subcommand("rm", "Remove one, and what was written into it");
  verb->add_option("NAME", remove->name, "What it is called")->required()->type_name("");
  verb->add_flag("--force", remove->force, "End its container first");
  AddLockTimeout(verb, remove.get());
  remove->instance.AddTo(verb);
  verb->callback([remove, exit_code] {
    *exit_code = RunOnRootfs(*remove, "removing", [&](const Instance& instance, auto timeout) {
      return RemoveRootfs(instance, remove->name, remove->force, timeout);
    });
  });

  const auto list = std::make_shared<NamedRootfs>();
  verb = app->add_subcommand("list", "List those that there are");
  verb->add_flag("--json", list->json, "Print JSON");
  AddLockTimeout(verb, list.get());
  list->instance.AddTo(verb);
  verb->callback([list, exit_code] {
    const char* const what = "looking at root file systems";
    *exit_code = RunOnRootfs(*list, what, [&](const Instance& instance, auto timeout) {
      return PrintRootfs(instance, list->json, timeout);
    });
  });
}

}  // namespace cli
