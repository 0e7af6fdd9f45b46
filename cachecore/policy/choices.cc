#include "cachecore/policy/choices.h"

#include <glog/logging.h>

#include <vector>

namespace cachecore {
namespace {

constexpr char kMaxName[] = "cache_max";
constexpr char kMinFreeName[] = "cache_min_free";
constexpr char kPinPrefix[] = "pin ";
constexpr char kNone[] = "none";
constexpr char kDefault[] = "default";

void Add(const char* name, const LimitChange& change, MetadataBatch* batch) {
  if (!change.is_given) return;
  if (change.value) {
    batch->put_choices.push_back({name, LimitText(*change.value)});
  } else {
    batch->erase_choices.emplace_back(name);
  }
}

}  // namespace

Result<LimitChange> ParseLimitChange(const std::string& text) {
  if (text.empty()) return LimitChange{};
  if (text == kDefault) return LimitChange{true, std::nullopt};
  if (text == kNone) return LimitChange{true, SizeOrPercent{}};
  ASSIGN_OR_RETURN(const SizeOrPercent limit, ParseSizeOrPercent(text));
  return LimitChange{true, limit};
}

std::string LimitText(const SizeOrPercent& limit) {
  if (limit.percent > 0) return std::to_string(limit.percent) + "%";
  return limit.bytes > 0 ? std::to_string(limit.bytes) : kNone;
}

std::string PinName(const std::string& volume, const std::string& cookie) {
  return kPinPrefix + volume + "/" + cookie;
}

void Choices::Load() {
  const Result<std::vector<Choice>> choices = store_->LoadChoices();
  MutexLock lock(&mu_);
  are_unread_ = !choices.ok();
  LOG_IF(ERROR, are_unread_) << "the limits and pins that were chosen cannot be read, so every "
                                "object counts as pinned until the next start: "
                             << choices.status().message();
  if (are_unread_) return;
  for (const auto& [name, value] : *choices) {
    if (name.starts_with(kPinPrefix)) {
      const std::string object = name.substr(sizeof(kPinPrefix) - 1);
      const size_t slash = object.find('/');
      if (slash != std::string::npos) {
        pins_.emplace(object.substr(0, slash), object.substr(slash + 1));
      }
      continue;
    }
    const Result<LimitChange> limit = ParseLimitChange(value);
    LOG_IF(ERROR, !limit.ok()) << "the choice " << name
                               << " is left out: " << limit.status().message();
    if (!limit.ok()) continue;
    if (name == kMaxName) limits_.max = limit->value;
    if (name == kMinFreeName) limits_.min_free = limit->value;
  }
}

ChosenLimits Choices::limits() const {
  MutexLock lock(&mu_);
  return limits_;
}

Status Choices::Commit(const MetadataBatch& batch) {
  return store_->Commit(batch, Sync::kYes).WithContext("this cannot be kept");
}

Status Choices::ChangeLimits(const LimitChange& max, const LimitChange& min_free) {
  MutexLock changing(&change_mu_);
  MetadataBatch batch;
  Add(kMaxName, max, &batch);
  Add(kMinFreeName, min_free, &batch);
  if (batch.empty()) return Status();
  RETURN_IF_ERROR(Commit(batch));
  MutexLock lock(&mu_);
  if (max.is_given) limits_.max = max.value;
  if (min_free.is_given) limits_.min_free = min_free.value;
  return Status();
}

bool Choices::IsPinned(const std::string& volume, const std::string& cookie) const {
  MutexLock lock(&mu_);
  return are_unread_ || pins_.contains({volume, cookie});
}

Status Choices::SetPinned(const std::string& volume, const std::string& cookie, bool pinned) {
  MutexLock changing(&change_mu_);
  {
    MutexLock lock(&mu_);
    if (are_unread_) {
      return Status(EIO,
                    "the pins of this cache could not be read: every object counts as pinned "
                    "(the log has the cause; a restart reads them again)");
    }
  }
  if (IsPinned(volume, cookie) == pinned) return Status();
  MetadataBatch batch;
  if (pinned) {
    batch.put_choices.push_back({PinName(volume, cookie), "1"});
  } else {
    batch.erase_choices.push_back(PinName(volume, cookie));
  }
  RETURN_IF_ERROR(Commit(batch));
  MutexLock lock(&mu_);
  if (pinned) {
    pins_.emplace(volume, cookie);
  } else {
    pins_.erase({volume, cookie});
  }
  return Status();
}

}  // namespace cachecore
