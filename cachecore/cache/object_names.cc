#include "cachecore/cache/object_names.h"

namespace cachecore {
namespace {

std::string KeyOf(ObjectNumber volume, const std::string& cookie) {
  return std::to_string(volume.value) + "/" + cookie;
}

template <typename Map, typename Key>
std::optional<ObjectNumber> FindIn(const Map& map, const Key& key) {
  const auto it = map.find(key);
  return it == map.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace

std::optional<ObjectNumber> ObjectNames::Find(ObjectNumber volume,
                                              const std::string& cookie) const {
  return FindIn(by_name_, KeyOf(volume, cookie));
}

void ObjectNames::Set(ObjectNumber volume, const std::string& cookie, ObjectNumber number) {
  by_name_[KeyOf(volume, cookie)] = number;
}

void ObjectNames::Remove(ObjectNumber volume, const std::string& cookie) {
  by_name_.erase(KeyOf(volume, cookie));
}

std::optional<ObjectNumber> ObjectNames::FindSuccessor(ObjectNumber known) const {
  return FindIn(successors_, known);
}

void ObjectNames::SetSuccessor(ObjectNumber known, ObjectNumber successor) {
  successors_[known] = successor;
}

void ObjectNames::Forget(const Effects::Forgotten& object) {
  if (Find(object.volume, object.cookie_key) == object.number) {
    Remove(object.volume, object.cookie_key);
  }
  std::erase_if(successors_, [&](const auto& pair) { return pair.second == object.number; });
}

}  // namespace cachecore
