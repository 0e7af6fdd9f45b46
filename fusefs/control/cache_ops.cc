#include "fusefs/control/cache_ops.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

namespace fusefs {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::LimitChange;
using cachecore::ObjectInfo;
using cachecore::ObjectNumber;
using cachecore::ObjectUse;
using cachecore::Result;
using cachecore::Status;
using control::Request;
using nlohmann::json;

namespace {

std::string NameOf(const Request& request) { return request.volume + "/" + request.object; }

}  // namespace

CacheOps::CacheOps(cachecore::Cache* cache, Grants* grants, std::function<json()> describe_limits,
                   bool is_kept_by_us)
    : cache_(cache),
      grants_(grants),
      describe_limits_(std::move(describe_limits)),
      is_kept_by_us_(is_kept_by_us) {}

Status CacheOps::CheckIsOurs() const {
  if (is_kept_by_us_) return Status();
  return Status(EOPNOTSUPP,
                "the program of the instance's cachefiles device keeps the size of its cache");
}

json CacheOps::Limit(const Request& request) {
  const Result<LimitChange> max = cachecore::ParseLimitChange(request.max);
  if (!max.ok()) return control::EncodeRefusal(Status(max.status()).WithContext("max"));
  const Result<LimitChange> min_free = cachecore::ParseLimitChange(request.min_free);
  if (!min_free.ok())
    return control::EncodeRefusal(Status(min_free.status()).WithContext("min_free"));
  if (max->is_given || min_free->is_given) {
    Status changed = CheckIsOurs();
    if (changed.ok()) changed = cache_->choices().ChangeLimits(*max, *min_free);
    if (!changed.ok()) return control::EncodeRefusal(changed);
    LOG(INFO) << "the limits of the cache are now: max "
              << (max->is_given ? request.max : "as it was") << ", min free "
              << (min_free->is_given ? request.min_free : "as it was");
  }
  json answer = control::EncodeDone();
  answer[field::kCache] = describe_limits_();
  return answer;
}

Result<ObjectInfo> CacheOps::Find(const Request& request) {
  ASSIGN_OR_RETURN(std::optional<ObjectInfo> info, cache_->Find(request.volume, request.object));
  if (!info) return Status(ENOENT, NameOf(request) + ": the cache has no such object");
  return std::move(*info);
}

json CacheOps::SetPinned(const Request& request, bool pinned) {
  Status status = CheckIsOurs();
  // A pin of what is gone can be taken back.
  if (status.ok() && (pinned || !cache_->choices().IsPinned(request.volume, request.object))) {
    status = Status(Find(request).status());
  }
  if (status.ok()) status = cache_->culler().SetPinned(request.volume, request.object, pinned);
  return status.ok() ? control::EncodeDone() : control::EncodeRefusal(status);
}

json CacheOps::List() {
  json objects = json::array();
  for (const ObjectInfo& info : cache_->DescribeObjects()) {
    const ObjectUse use = cache_->culler().UseOf(info.number);
    objects.push_back(
        {{field::kNumber, info.number.value},
         {field::kVolume, info.volume_key},
         {field::kName, info.cookie_key},
         {field::kSize, info.size_bytes},
         {field::kPresent, info.present_bytes},
         {field::kAllocated, use.allocated},
         {field::kUsed, use.used},
         {field::kPinned, cache_->choices().IsPinned(info.volume_key, info.cookie_key)},
         {field::kMounted, grants_->Has({info.volume_key, info.cookie_key})}});
  }
  json answer = control::EncodeDone();
  answer[field::kObjects] = std::move(objects);
  answer[field::kCache] = describe_limits_();
  return answer;
}

Status CacheOps::RemoveFound(const Request& request, ObjectNumber number) {
  const bool is_pinned = cache_->choices().IsPinned(request.volume, request.object);
  if (is_pinned && (request.bytes_only || request.unless_pinned)) {
    return Status(EBUSY, NameOf(request) + " is pinned: holdfast cache unpin it first");
  }
  if (request.bytes_only) return cache_->culler().CullObject(number);
  return cache_->culler()
      .Drop(number,
            [this](const std::string& volume, const std::string& object) {
              return grants_->Has({volume, object});
            })
      .WithContext(NameOf(request));
}

json CacheOps::Remove(const Request& request) {
  if (const Status ours = CheckIsOurs(); !ours.ok()) return control::EncodeRefusal(ours);
  const Result<ObjectInfo> info = Find(request);
  if (!info.ok()) return control::EncodeRefusal(info.status());
  const uint64_t before = cache_->culler().UseOf(info->number).allocated;
  const Status removed = RemoveFound(request, info->number);
  if (!removed.ok()) return control::EncodeRefusal(removed);
  const uint64_t left = cache_->culler().UseOf(info->number).allocated;
  return control::EncodeRemove({before - std::min(before, left), left});
}

}  // namespace fusefs
