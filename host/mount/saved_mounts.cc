#include "host/mount/saved_mounts.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <iostream>
#include <thread>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/environment/secret_environment.h"
#include "cachecore/system/files.h"
#include "cachecore/system/subprocess.h"
#include "host/images/origin_access.h"
#include "host/instance/privileges.h"
#include "host/instance/settings.h"
#include "host/instance/systemd_unit.h"
#include "host/mount/mount_command.h"
#include "host/mount/umount_command.h"
#include "host/mounts/fuse_release.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::FindProgram;
using cachecore::JsonString;
using cachecore::ProgramEnd;
using cachecore::ReadJsonFile;
using cachecore::Result;
using cachecore::RunProgram;
using cachecore::Status;
using cachecore::StopSignalled;
using cachecore::UniqueFd;
using cachecore::WithoutControls;
using nlohmann::json;
using std::chrono::milliseconds;

// More would fetch no faster from one origin.
constexpr size_t kAtOnce = 8;
// A command needs a little longer than its --timeout to undo what it has begun.
constexpr milliseconds kRestoreGrace{20000};
constexpr milliseconds kForgetTime{10000};

const char* StateName(SavedState state) {
  switch (state) {
    case SavedState::kMounted:
      return "mounted";
    case SavedState::kDead:
      return "dead";
    case SavedState::kMounting:
      return "mounting";
    case SavedState::kNotMounted:
      return "not mounted";
    case SavedState::kBad:
      return "bad record";
  }
  return "";
}

SavedState StateOf(const SavedMount& saved, const std::vector<OwnMount>& mounts,
                   bool is_connection_dead) {
  for (const OwnMount& mount : mounts) {
    if (mount.record.mount_point != saved.mount_point) continue;
    if (mount.state == MountState::kDead) return SavedState::kDead;
    if (mount.state == MountState::kMounted) {
      return is_connection_dead ? SavedState::kDead : SavedState::kMounted;
    }
    if (mount.state == MountState::kMounting) return SavedState::kMounting;
  }
  return SavedState::kNotMounted;
}

// Keys that only an environment holds are nowhere after a reboot.
void WarnOfLostKeys(const Instance& instance, const SavedMount& save) {
  if (!cachecore::SecretEnvironment::IsSet() || !save.image.starts_with("s3:") ||
      IsRunElsewhere(instance)) {
    return;
  }
  std::cerr << "holdfast: the AWS keys of this environment are written to no file, and " << save.url
            << " comes back without them; name a profile that has them (--s3-profile), or let "
               "systemd run the instance with /etc/holdfast/"
            << instance.name() << ".fetcher.env\n";
}

// The options of `holdfast mount` that a record stands for.
Result<MountOptions> OptionsOf(const Instance& instance, const SavedMount& saved) {
  // A renewed signature is there, too.
  const Result<json> source = ReadJsonFile(instance.SourceFile(saved.volume));
  const std::string query = source.ok() ? JsonString(*source, "query") : "";
  CLI::App app;
  MountOptions options;
  options.AddTo(&app);
  std::vector<std::string> arguments = saved.options;
  for (const std::string& origin : saved.origins) arguments.push_back("--origin=" + origin + query);
  arguments.insert(arguments.end(), {"--", saved.image + query, saved.mount_point});
  RETURN_IF_ERROR(ParseArguments(&app, arguments));
  options.instance.name = instance.name();
  options.instance.root = instance.root().empty() ? "/" : instance.root();
  options.persist = true;
  options.repeatable = saved.options;
  options.quiet = true;
  return options;
}

// With the settings that it had when the last of its mounts was recorded.  Each of them alone would
// start it with its own.  True: it did not run.
Result<bool> StartInstance(const Instance& instance, const Deadline& deadline) {
  SavedMount newest;
  for (const SavedMountFile& file : ListSavedMounts(instance)) {
    if (file.mount.ok() && !file.mount->settings.is_null() &&
        file.mount->since_unix_s >= newest.since_unix_s) {
      newest = *file.mount;
    }
  }
  if (newest.settings.is_null()) return false;
  ASSIGN_OR_RETURN(const UniqueFd lock, LockInstance(instance, deadline));
  if (AnswersPing(instance) || SystemdRuns(instance)) return false;
  Result<bool> started = EnsureRunning(instance, Settings::FromJson(newest.settings), deadline);
  // It runs by now, with others.
  if (started.status().error() == EBUSY) return false;
  return started;
}

// One that was started for a mount that failed, and has no other.
void StopUnused(const Instance& instance) {
  const Result<UniqueFd> lock = LockInstance(instance, Deadline(kForgetTime));
  const Result<std::vector<MountRecord>> others = LiveMounts(instance);
  if (!lock.ok() || !others.ok() || !others->empty()) return;
  StopInstance(instance).IgnoreError("the error that led here is the one to tell");
}

// What is on another's directory comes after it.
std::vector<std::vector<SavedMountState>> Levels(std::vector<SavedMountState> mounts) {
  std::sort(mounts.begin(), mounts.end(),
            [](const auto& a, const auto& b) { return a.mount.mount_point < b.mount.mount_point; });
  std::vector<std::vector<SavedMountState>> levels;
  for (const SavedMountState& each : mounts) {
    const std::string& point = each.mount.mount_point;
    const auto below = std::count_if(mounts.begin(), mounts.end(), [&point](const auto& other) {
      return point.starts_with(other.mount.mount_point + "/");
    });
    levels.resize(std::max(levels.size(), static_cast<size_t>(below) + 1));
    levels[static_cast<size_t>(below)].push_back(each);
  }
  return levels;
}

std::string LastLine(std::string line) {
  while (line.ends_with('\n')) line.pop_back();
  line.erase(0, line.rfind('\n') + 1);
  if (line.starts_with("holdfast: ")) line.erase(0, 10);
  return line;
}

// Why each has failed; "" for those that are mounted.
std::vector<std::string> RestoreEach(const std::string& program, const std::string& root,
                                     const std::vector<SavedMountState>& mounts,
                                     milliseconds timeout, const Deadline& begin_until) {
  std::vector<std::string> why(mounts.size());
  std::atomic<size_t> next = 0;  // Each index is one thread's.
  const auto work = [&] {
    for (size_t i = next++; i < mounts.size() && !StopSignalled(); i = next++) {
      if (begin_until.Expired()) {
        why[i] = "it has not been tried yet: others took too long";
        continue;
      }
      const Result<ProgramEnd> done = RunProgram(
          {program, "mounts", "--restore", "--root", root, "--instance", mounts[i].instance.name(),
           "--timeout", std::to_string(timeout.count()) + "ms", "--", mounts[i].mount.mount_point},
          Deadline(timeout + kRestoreGrace));
      if (!done.ok()) why[i] = done.status().message();
      if (done.ok() && done->exit_code != 0) why[i] = LastLine(done->output);
      if (done.ok() && done->exit_code != 0 && why[i].empty()) {
        why[i] = "it failed without a message (exit code " + std::to_string(done->exit_code) + ")";
      }
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < std::min(kAtOnce, mounts.size()); ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return why;
}

// Another mount that was to come back to the place of this one does not.
Status EndOther(const Instance& instance, const MountRecord& record) {
  for (const Instance& one : Instance::List(instance.root())) {
    const Result<SavedMount> earlier = ReadSavedMount(one, record.mount_point);
    if (!earlier.ok()) continue;
    if (one.name() == instance.name() && earlier->volume == record.volume) continue;
    ASSIGN_OR_RETURN(const bool is_removed, RemoveSavedMount(one, record.mount_point));
    if (!is_removed) continue;
    std::cerr << "holdfast: " << earlier->url << ", which --persist was to bring back to "
              << record.mount_point << ", does not come back there any more\n";
  }
  return {};
}

}  // namespace

Status SaveMount(const Instance& instance, const std::optional<SavedMount>& save,
                 const MountRecord& record) {
  if (!save) return EndOther(instance, record);
  SavedMount saved = *save;
  saved.mount_point = record.mount_point;
  saved.url = record.url;
  saved.volume = record.volume;
  saved.since_unix_s = record.since_unix_s;
  // A plain file's first bytes need not be there then.
  std::erase_if(saved.options, [](const std::string& word) { return word.starts_with("--as="); });
  saved.options.push_back("--as=" + (record.kind == "overlay" ? "erofs" : record.kind));
  const Result<json> settings = ReadJsonFile(instance.SettingsFile());
  if (settings.ok()) saved.settings = GivenSettings(*settings).ToJson();
  WarnOfLostKeys(instance, saved);
  return WriteSavedMount(instance, saved)
      .WithContext("cannot mount " + record.url + " with --persist");
}

Result<std::vector<SavedMountState>> ListSaved(const std::string& root,
                                               const std::string& instance) {
  std::vector<Instance> instances = Instance::List(root);
  if (!instance.empty()) {
    ASSIGN_OR_RETURN(Instance one, Instance::Make(root, instance));
    RETURN_IF_ERROR(one.CheckIsKnown());
    instances = {std::move(one)};
  }
  std::vector<SavedMountState> found;
  for (const Instance& each : instances) {
    const std::vector<SavedMountFile> files = ListSavedMounts(each);
    if (files.empty()) continue;
    ASSIGN_OR_RETURN(const std::vector<OwnMount> mounts, ListMounts(each));
    const bool is_dead = IsConnectionDead(each);
    for (const SavedMountFile& file : files) {
      if (file.mount.ok()) {
        found.push_back({each, *file.mount, StateOf(*file.mount, mounts, is_dead)});
      } else {
        found.push_back({each, {}, SavedState::kBad, file.mount.status().message()});
      }
    }
  }
  return found;
}

json SavedToJson(const std::vector<SavedMountState>& mounts) {
  json list = json::array();
  for (const SavedMountState& each : mounts) {
    json one = {{"instance", each.instance.name()}, {"state", StateName(each.state)}};
    if (each.state == SavedState::kBad) {
      one["error"] = each.trouble;
    } else {
      one["mount_point"] = each.mount.mount_point;
      one["url"] = each.mount.url;
      one["time"] = each.mount.since_unix_s;
    }
    list.push_back(std::move(one));
  }
  return {{"version", 1}, {"mounts", std::move(list)}};
}

std::string SavedToText(const std::vector<SavedMountState>& mounts) {
  std::string text;
  for (const SavedMountState& each : mounts) {
    const bool is_bad = each.state == SavedState::kBad;
    text +=
        each.instance.name() + "  " + StateName(each.state) + "  " +
        WithoutControls(is_bad ? each.trouble : each.mount.mount_point + "  " + each.mount.url) +
        "\n";
  }
  return text;
}

Status RestoreMount(const Instance& instance, const std::string& mount_point,
                    milliseconds timeout) {
  RETURN_IF_ERROR(RequireMountRights("mounting"));
  const Deadline deadline(timeout);
  Result<SavedMount> saved = ReadSavedMount(instance, mount_point);
  if (saved.status().error() == ENOENT) {
    return Status(ENOENT, mount_point + " is not persistent in instance " + instance.name() +
                              "; holdfast mounts lists what is");
  }
  RETURN_IF_ERROR(saved.status());
  ASSIGN_OR_RETURN(const bool is_mounted, IsMountedAt(instance, mount_point));
  if (is_mounted) return {};
  SetAccessEnvironment(saved->environment);
  ASSIGN_OR_RETURN(const MountOptions options, OptionsOf(instance, *saved));
  ASSIGN_OR_RETURN(ParsedMount parsed, ParseMount(options));
  parsed.request.timeout = timeout;
  parsed.request.restores = true;
  ASSIGN_OR_RETURN(const bool is_started, StartInstance(instance, deadline));
  Status mounted = MountParsed(&parsed, deadline);
  if (!mounted.ok() && is_started) StopUnused(instance);
  return mounted;
}

Result<RestoreEnd> RestoreMounts(const std::string& root, const std::string& instance,
                                 milliseconds timeout, const Deadline& begin_until) {
  RETURN_IF_ERROR(RequireMountRights("mounting"));
  ASSIGN_OR_RETURN(const std::string program, FindProgram("holdfast"));
  ASSIGN_OR_RETURN(std::vector<SavedMountState> mounts, ListSaved(root, instance));
  RestoreEnd end;
  for (const SavedMountState& each : mounts) {
    if (each.state == SavedState::kBad) end.bad.push_back(each.trouble);
  }
  std::erase_if(mounts, [](const auto& each) {
    return each.state != SavedState::kNotMounted && each.state != SavedState::kDead;
  });
  for (const std::vector<SavedMountState>& level : Levels(std::move(mounts))) {
    const std::vector<std::string> why = RestoreEach(program, root, level, timeout, begin_until);
    for (size_t i = 0; i < level.size(); ++i) {
      if (!why[i].empty()) end.failed[level[i].mount.mount_point] = why[i];
    }
  }
  if (StopSignalled()) return Status(EINTR, "interrupted: not all is mounted");
  return end;
}

Status UnmountSaved(const std::string& root, const std::string& instance,
                    const Deadline& deadline) {
  RETURN_IF_ERROR(RequireMountRights("unmounting"));
  ASSIGN_OR_RETURN(std::vector<SavedMountState> mounts, ListSaved(root, instance));
  std::sort(mounts.begin(), mounts.end(),
            [](const auto& a, const auto& b) { return a.mount.mount_point > b.mount.mount_point; });
  size_t left = 0;
  for (const SavedMountState& each : mounts) {
    if (each.state != SavedState::kMounted && each.state != SavedState::kDead) continue;
    const Status done = UmountByArguments({"--root", root, "--instance", each.instance.name(),
                                           "--keep-persistent", "--", each.mount.mount_point},
                                          deadline);
    if (done.ok()) continue;
    std::cerr << "holdfast: " << WithoutControls(done.message()) << "\n";
    ++left;
  }
  if (left == 0) return {};
  return Status(EBUSY, std::to_string(left) + " of them stay mounted");
}

}  // namespace host
