#include "host/cache/cache_list.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/progress.h"
#include "cachecore/protocol/control_messages.h"
#include "cachecore/system/files.h"
#include "host/mount/persistent_request.h"
#include "host/mounts/layer_mounts.h"
#include "host/mounts/own_mounts.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::BytesText;
using cachecore::Deadline;
using cachecore::JsonBool;
using cachecore::JsonField;
using cachecore::JsonInt;
using cachecore::JsonString;
using cachecore::Result;
using cachecore::Status;
using cachecore::WithoutControls;
using nlohmann::json;

uint64_t Unsigned(const json& object, const char* key) {
  return static_cast<uint64_t>(JsonInt(object, key));
}

std::string AgeText(int64_t seconds) {
  if (seconds < 0) seconds = 0;  // The clock was set back.
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) return std::to_string(seconds / 60) + "m";
  if (seconds < 2 * 86400) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

std::string Count(size_t n, const char* noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

// What the objects of a volume have before their names; "" when that is not known.
std::string BaseUrlOf(const Instance& instance, const std::string& volume) {
  const Result<json> source = cachecore::ReadJsonFile(instance.SourceFile(volume));
  if (!source.ok()) return "";
  const json& origins = JsonField(*source, "origins");
  return origins.is_array() && !origins.empty() && origins[0].is_string()
             ? origins[0].get<std::string>()
             : "";
}

std::string LimitText(const json& limits, const char* value, const char* bytes, const char* source,
                      const char* flag) {
  const std::string text = JsonString(limits, value);
  const std::string from = JsonString(limits, source);
  std::string line = text == "none" ? "none" : BytesText(Unsigned(limits, bytes));
  if (text.ends_with('%')) line += " (" + text + " of the file system)";
  if (from == "limit") return line + ", set by holdfast cache limit";
  return line + (from == "flag" ? std::string(", set by ") + flag : "");
}

}  // namespace

Result<CacheList> AskCacheList(const Instance& instance, const Deadline& deadline) {
  const json question = control::EncodeRequest({.operation = control::Operation::kList});
  const Result<json> answer = AskPersistently(
      instance, [&](std::chrono::milliseconds) { return question; }, deadline);
  if (!answer.ok()) return WhyUnasked(instance, answer.status());
  CacheList list;
  list.limits = JsonField(*answer, field::kCache);
  for (const json& row : JsonField(*answer, field::kObjects)) {
    list.objects.push_back({.volume = JsonString(row, field::kVolume),
                            .object = JsonString(row, field::kName),
                            .size_bytes = Unsigned(row, field::kSize),
                            .present_bytes = Unsigned(row, field::kPresent),
                            .allocated_bytes = Unsigned(row, field::kAllocated),
                            .is_pinned = JsonBool(row, field::kPinned),
                            .is_granted = JsonBool(row, field::kMounted),
                            .used_unix_s = JsonInt(row, field::kUsed)});
  }
  CompleteCacheList(instance, &list);
  return list;
}

void CompleteCacheList(const Instance& instance, CacheList* list) {
  std::map<std::pair<std::string, std::string>, CachedObject*> by_name;
  std::map<std::string, std::string> bases;
  for (CachedObject& object : list->objects) {
    by_name[{object.volume, object.object}] = &object;
    auto base = bases.find(object.volume);
    if (base == bases.end()) {
      base = bases.emplace(object.volume, BaseUrlOf(instance, object.volume)).first;
    }
    if (!base->second.empty()) object.url = base->second + object.object;
  }
  const Result<std::vector<OwnMount>> mounts = ListMounts(instance);
  std::vector<MountRecord> alive;
  for (const OwnMount& mount : mounts.ok() ? *mounts : std::vector<OwnMount>()) {
    const bool is_alive =
        mount.state == MountState::kMounted || mount.state == MountState::kMounting;
    if (is_alive) alive.push_back(mount.record);
  }
  for (const OwnMount& mount : mounts.ok() ? *mounts : std::vector<OwnMount>()) {
    const auto found = by_name.find({mount.record.volume, mount.record.object});
    if (found == by_name.end()) continue;
    found->second->url = mount.record.url;
  }
  for (const MountRecord& record : alive) {
    const auto found = by_name.find({record.volume, record.object});
    if (found == by_name.end()) continue;
    for (std::string& point : ShownAt(record, alive)) {
      found->second->mount_points.push_back(std::move(point));
    }
  }
  std::stable_sort(
      list->objects.begin(), list->objects.end(),
      [](const CachedObject& a, const CachedObject& b) { return a.used_unix_s > b.used_unix_s; });
}

Result<CachedObject> FindCached(const Instance& instance, const CacheList& list,
                                const std::string& name) {
  const std::unique_ptr<char, void (*)(void*)> path(realpath(name.c_str(), nullptr), std::free);
  const auto is_at = [&](const std::string& point) {
    return point == name || (path && point == path.get());
  };
  // The list has no queries, since they may be secret.
  const std::string url = name.substr(0, name.find('?'));
  std::vector<const CachedObject*> found;
  for (const CachedObject& object : list.objects) {
    if (object.Name() == name ||
        std::any_of(object.mount_points.begin(), object.mount_points.end(), is_at)) {
      return object;
    }
    if (object.url == url) found.push_back(&object);
  }
  if (found.size() == 1) return *found.front();
  if (found.empty()) {
    return Status(ENOENT, name +
                              ": neither a mount point, a URL nor an object of the cache of "
                              "instance " +
                              instance.name() + " (holdfast cache ls" + instance.Flags() +
                              " lists them)");
  }
  std::string names;
  for (const CachedObject* object : found) names += (names.empty() ? "" : ", ") + object->Name();
  return Status(EINVAL, name + " names several objects; choose one: " + names);
}

json CacheListToJson(const CacheList& list) {
  json objects = json::array();
  uint64_t allocated = 0;
  for (const CachedObject& object : list.objects) {
    allocated += object.allocated_bytes;
    objects.push_back({{"name", object.Name()},
                       {"volume", object.volume},
                       {"object", object.object},
                       {"url", object.url},
                       {"size", object.size_bytes},
                       {"present", object.present_bytes},
                       {"allocated", object.allocated_bytes},
                       {"pinned", object.is_pinned},
                       {"mounted", object.IsMounted()},
                       {"mounts", object.mount_points},
                       {"used", object.used_unix_s}});
  }
  return {{"version", 1},
          {"objects", std::move(objects)},
          {"total", {{"objects", list.objects.size()}, {"allocated", allocated}}},
          {"limits", list.limits}};
}

std::string CacheListToText(const CacheList& list, int64_t now_unix_s) {
  std::string text;
  uint64_t allocated = 0, pinned = 0;
  for (const CachedObject& object : list.objects) {
    allocated += object.allocated_bytes;
    if (object.is_pinned) pinned += object.allocated_bytes;
    std::string where;
    for (const std::string& point : object.mount_points) {
      where += (where.empty() ? ", mounted at " : " and ") + WithoutControls(point);
    }
    if (where.empty() && object.is_granted) where = ", in use";
    text += WithoutControls(object.Name()) + "\n  " +
            (object.url.empty() ? "" : WithoutControls(object.url) + "\n  ") +
            BytesText(object.size_bytes) + ", " + BytesText(object.allocated_bytes) +
            " in the cache, used " + AgeText(now_unix_s - object.used_unix_s) + " ago" +
            (object.is_pinned ? ", pinned" : "") + where + "\n";
  }
  return text + "total: " + Count(list.objects.size(), "object") + ", " + BytesText(allocated) +
         " in the cache, " + BytesText(pinned) + " of them pinned\n";
}

std::string LimitsToText(const json& limits) {
  const bool applies = JsonBool(limits, field::kApplies);
  const std::string trouble = WithoutControls(JsonString(limits, field::kTrouble));
  return "max       " +
         LimitText(limits, field::kMax, field::kMaxBytes, field::kMaxSource, "--cache-max") +
         "\nmin free  " +
         LimitText(limits, field::kMinFree, field::kMinFreeBytes, field::kMinFreeSource,
                   "--cache-min-free") +
         "\nused      " + BytesText(Unsigned(limits, field::kAllocated)) + "\nfree      " +
         BytesText(Unsigned(limits, field::kFree)) + " of " +
         BytesText(Unsigned(limits, field::kTotal)) + "\n" +
         (trouble.empty() ? "" : "trouble   " + trouble + "\n") +
         (applies ? "" : "The program of the instance's cachefiles device keeps the size.\n");
}

}  // namespace host
