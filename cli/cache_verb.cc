#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cachecore/base/deadline.h"
#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/progress.h"
#include "cachecore/offline/list.h"
#include "cachecore/policy/choices.h"
#include "cachecore/store/boot_id.h"
#include "cli/command.h"
#include "host/cache/cache_change.h"
#include "host/cache/cache_list.h"
#include "host/instance/cache_dir.h"
#include "host/instance/privileges.h"
#include "host/service/instance_control.h"

namespace cli {
namespace {

using cachecore::BytesText;
using cachecore::CatchStopSignals;
using cachecore::Deadline;
using cachecore::JsonText;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using host::AskCacheList;
using host::CachedObject;
using host::CacheList;
using host::Instance;
using host::InstanceOptions;
using host::kLockTimeoutText;
using host::LockInstance;
using host::ParseTimeout;
using host::Removal;
using host::RequireRoot;
using nlohmann::json;

// To read the records of a large cache, or to wait for a daemon that is started again.
constexpr std::chrono::minutes kAnswerTime{1};
// To take all of a large object out.
constexpr std::chrono::minutes kRemovalTime{10};

struct CacheOptions {
  InstanceOptions instance;
  std::string max;
  std::string min_free;
  std::vector<std::string> names;
  std::string older_than;
  std::string timeout = kLockTimeoutText;
  bool bytes = false;
  bool dry_run = false;
  bool json = false;
};

bool IsNotRunning(const Status& status) {
  return status.error() == ENOENT || status.error() == ECONNREFUSED;
}

// Of an instance that does not run: what its records say.
Result<CacheList> ReadCacheList(const Instance& instance) {
  const std::string directory = host::CacheDirOf(instance);
  RETURN_IF_ERROR(host::CheckIsCache(directory));
  ASSIGN_OR_RETURN(const std::string boot_id, cachecore::ReadBootId(directory));
  ASSIGN_OR_RETURN(const std::vector<cachecore::ListedObject> objects,
                   cachecore::ListCache(directory, boot_id));
  CacheList list;
  for (const cachecore::ListedObject& object : objects) {
    list.objects.push_back({.volume = object.volume,
                            .object = object.cookie,
                            .size_bytes = object.size_bytes,
                            .present_bytes = object.present_bytes,
                            .allocated_bytes = object.allocated_bytes,
                            .is_pinned = object.is_pinned,
                            .used_unix_s = static_cast<int64_t>(object.used)});
  }
  list.limits = json::object();
  CompleteCacheList(instance, &list);
  return list;
}

// An instance that runs, or one that has a cache.
Result<CacheList> ListOf(const Instance& instance) {
  Result<CacheList> list = AskCacheList(instance, Deadline(kAnswerTime));
  if (list.ok() || !IsNotRunning(list.status())) return list;
  if (const Status known = instance.CheckIsKnown(); !known.ok()) return known;
  return ReadCacheList(instance);
}

int RunList(const CacheOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  if (const Status root = RequireRoot("listing a cache"); !root.ok()) return Fail(root);
  const Result<CacheList> list = ListOf(*instance);
  if (!list.ok()) return Fail(list.status());
  std::cout << (options.json ? JsonText(CacheListToJson(*list), 2) + "\n"
                             : CacheListToText(*list, std::time(nullptr)));
  return kExitOk;
}

int RunLimit(const CacheOptions& options) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  for (const auto& [flag, text] :
       {std::pair("--max", &options.max), std::pair("--min-free", &options.min_free)}) {
    const auto parsed = cachecore::ParseLimitChange(*text);
    if (!parsed.ok()) return Fail(Status(parsed.status()).WithContext(flag), kExitUsage);
  }
  if (const Status root = RequireRoot("showing or changing the limits of a cache"); !root.ok())
    return Fail(root);
  const Result<json> limits =
      ChangeLimits(*instance, options.max, options.min_free, Deadline(kAnswerTime));
  if (!limits.ok()) return Fail(limits.status());
  std::cout << (options.json ? JsonText(*limits, 2) + "\n" : host::LimitsToText(*limits));
  return kExitOk;
}

int RunPin(const CacheOptions& options, bool pinned) {
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  if (const Status root = RequireRoot("pinning what is in a cache"); !root.ok()) return Fail(root);
  const Result<CacheList> list = AskCacheList(*instance, Deadline(kAnswerTime));
  if (!list.ok()) return Fail(list.status());
  int exit_code = kExitOk;
  for (const std::string& name : options.names) {
    const Result<CachedObject> found = FindCached(*instance, *list, name);
    CachedObject object = found.ok() ? *found : CachedObject();
    const size_t slash = name.find('/');
    const bool may_be_gone = !found.ok() && !pinned && slash != 0 && slash != std::string::npos &&
                             name.find('/', slash + 1) == std::string::npos;
    if (may_be_gone) {  // The pin of an object that is gone.
      object.volume = name.substr(0, slash);
      object.object = name.substr(slash + 1);
    }
    Status done = found.ok() || may_be_gone
                      ? SetPinned(*instance, object, pinned, Deadline(kAnswerTime))
                      : Status(found.status());
    if (!found.ok() && done.error() == ENOENT) done = Status(found.status());
    if (!done.ok()) exit_code = Fail(done);
  }
  return exit_code;
}

int PrintRemovals(const std::vector<Removal>& removals, const CacheOptions& options) {
  json removed = json::array(), kept = json::array();
  uint64_t bytes = 0;
  int exit_code = kExitOk;
  for (const Removal& removal : removals) {
    const std::string name = removal.object.Name();
    bytes += removal.removed_bytes;
    if (!removal.status.ok()) {
      kept.push_back({{"name", name}, {"error", removal.status.message()}});
      exit_code = Fail(removal.status);
      continue;
    }
    removed.push_back(
        {{"name", name}, {"bytes", removal.removed_bytes}, {"left", removal.left_bytes}});
    if (options.json) continue;
    std::cout << cachecore::WithoutControls(name) << ": "
              << (options.dry_run ? "would remove " : "removed ")
              << BytesText(removal.removed_bytes)
              << (options.bytes && removal.left_bytes > 0
                      ? ", " + BytesText(removal.left_bytes) + " are in use and stay"
                      : "")
              << "\n";
  }
  const json printed = {{"dry_run", options.dry_run},
                        {"removed", std::move(removed)},
                        {"kept", std::move(kept)},
                        {"bytes", bytes}};
  if (options.json) {
    std::cout << JsonText(printed, 2) << "\n";
  } else {
    std::cout << "total: " << BytesText(bytes) << "\n";
  }
  return exit_code;
}

int RunRemove(const CacheOptions& options) {
  CatchStopSignals();
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  if (const Status root = RequireRoot("removing from a cache"); !root.ok()) return Fail(root);
  const Result<UniqueFd> lock = LockInstance(*instance, Deadline(*timeout));
  if (!lock.ok()) return Fail(lock.status());
  Result<CacheList> list = AskCacheList(*instance, Deadline(kAnswerTime));
  if (!list.ok()) return Fail(list.status());
  ReleaseUnused(*instance, &*list);
  // All names or none: one that was mistyped removes nothing.
  std::vector<CachedObject> objects;
  for (const std::string& name : options.names) {
    Result<CachedObject> object = FindCached(*instance, *list, name);
    if (!object.ok()) return Fail(object.status());
    const bool is_known = std::any_of(objects.begin(), objects.end(), [&](const auto& known) {
      return known.Name() == object->Name();
    });
    if (!is_known) objects.push_back(std::move(object).value());
  }
  return PrintRemovals(
      RemoveObjects(*instance, objects, {.bytes_only = options.bytes}, Deadline(kRemovalTime)),
      options);
}

int RunPrune(const CacheOptions& options) {
  CatchStopSignals();
  const Result<Instance> instance = options.instance.Make();
  if (!instance.ok()) return Fail(instance.status(), kExitUsage);
  const Result<std::chrono::milliseconds> timeout = ParseTimeout(options.timeout);
  if (!timeout.ok()) return Fail(timeout.status(), kExitUsage);
  const Result<cachecore::Duration> least =
      cachecore::ParseDuration(options.older_than.empty() ? "0" : options.older_than);
  if (!least.ok()) return Fail(Status(least.status()).WithContext("--older-than"), kExitUsage);
  const int64_t least_s = std::chrono::ceil<std::chrono::seconds>(*least).count();
  if (const Status root = RequireRoot("removing from a cache"); !root.ok()) return Fail(root);
  const Result<UniqueFd> lock = LockInstance(*instance, Deadline(*timeout));
  if (!lock.ok()) return Fail(lock.status());
  Result<CacheList> list = AskCacheList(*instance, Deadline(kAnswerTime));
  if (!list.ok()) return Fail(list.status());
  ReleaseUnused(*instance, &*list);
  std::vector<CachedObject> objects;
  for (const CachedObject& object : list->objects) {
    if (object.IsMounted() || object.is_pinned) continue;
    // The daemon's clock is finer: what was used a moment ago may seem to be of the next second.
    const int64_t age_s = std::max<int64_t>(std::time(nullptr) - object.used_unix_s, 0);
    if (age_s >= least_s) objects.push_back(object);
  }
  std::vector<Removal> removals;
  if (options.dry_run) {
    for (const CachedObject& object : objects) {
      removals.push_back({object, Status(), object.allocated_bytes, 0});
    }
  } else {
    removals = RemoveObjects(*instance, objects, {.unless_pinned = true}, Deadline(kRemovalTime));
  }
  return PrintRemovals(removals, options);
}

CLI::App* AddPart(CLI::App* app, const char* name, const char* summary,
                  const std::shared_ptr<CacheOptions>& options) {
  CLI::App* part = app->add_subcommand(name, summary);
  options->instance.AddTo(part);
  return part;
}

void AddNames(CLI::App* part, CacheOptions* options) {
  part->add_option("NAME", options->names,
                   "Mount point, URL, or VOLUME/OBJECT of holdfast cache ls")
      ->required();
}

void AddJson(CLI::App* part, CacheOptions* options) {
  part->add_flag("--json", options->json, "Print JSON");
}

void AddTimeout(CLI::App* part, CacheOptions* options) {
  part->add_option("--timeout", options->timeout,
                   "How long to wait for another command on this instance (default: 60s)")
      ->type_name("TIME");
}

void AddPinParts(CLI::App* app, int* exit_code) {
  for (const bool pinned : {true, false}) {
    const auto options = std::make_shared<CacheOptions>();
    CLI::App* part =
        AddPart(app, pinned ? "pin" : "unpin",
                pinned ? "Keep an object from being culled" : "Take a pin back", options);
    AddNames(part, options.get());
    part->callback([options, exit_code, pinned] { *exit_code = RunPin(*options, pinned); });
  }
}

void AddRemovalParts(CLI::App* app, int* exit_code) {
  const auto rm = std::make_shared<CacheOptions>();
  CLI::App* part = AddPart(app, "rm", "Remove objects that no mount shows", rm);
  AddNames(part, rm.get());
  part->add_flag("--bytes", rm->bytes, "Only the cached bytes, also of what is mounted");
  AddJson(part, rm.get());
  AddTimeout(part, rm.get());
  part->callback([rm, exit_code] { *exit_code = RunRemove(*rm); });

  const auto prune = std::make_shared<CacheOptions>();
  part = AddPart(app, "prune", "Remove all objects that are neither mounted nor pinned", prune);
  part->add_option("--older-than", prune->older_than, "Only what was not used for this time")
      ->type_name("TIME");
  part->add_flag("--dry-run", prune->dry_run, "Only say what would go");
  AddJson(part, prune.get());
  AddTimeout(part, prune.get());
  part->callback([prune, exit_code] { *exit_code = RunPrune(*prune); });
}

}  // namespace

void AddCache(CLI::App* app, int* exit_code) {
  app->require_subcommand(1);
  const auto list = std::make_shared<CacheOptions>();
  CLI::App* part = AddPart(app, "ls", "List the objects of a cache", list);
  AddJson(part, list.get());
  part->callback([list, exit_code] { *exit_code = RunList(*list); });

  const auto limit = std::make_shared<CacheOptions>();
  part = AddPart(app, "limit", "Show or change how large a cache may be", limit);
  part->add_option("--max", limit->max, "The most that the cache may have: none, default, or")
      ->type_name("SIZE|PERCENT%");
  part->add_option("--min-free", limit->min_free, "What is left to others: none, default, or")
      ->type_name("SIZE|PERCENT%");
  AddJson(part, limit.get());
  part->callback([limit, exit_code] { *exit_code = RunLimit(*limit); });

  AddPinParts(app, exit_code);
  AddRemovalParts(app, exit_code);
}

}  // namespace cli
