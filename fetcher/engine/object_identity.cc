#include "fetcher/engine/object_identity.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace fetcher {

using Kind = Failure::Kind;

std::optional<Failure> ObjectIdentity::DiffersFromUnchecked(const std::string& origin,
                                                            const std::string& url,
                                                            const ObjectVersion& version) const {
  const auto pin = known_->pins.find(origin);
  const bool other_pin = pin != known_->pins.end() && pin->second.value != version.pin.value;
  if (version.size_bytes == known_->size_bytes && !other_pin) return std::nullopt;
  return Failure{Kind::kChanged, ESTALE, url + ": changed since it was fetched"};
}

void ObjectIdentity::Confirm() { attr_ = std::exchange(known_, std::nullopt).value(); }

bool ObjectIdentity::IsNamedByDigest() const {
  const auto by_digest = [](const auto& pin) { return pin.second.kind == "digest"; };
  return verity_ || std::any_of(attr_.pins.begin(), attr_.pins.end(), by_digest);
}

ObjectVersion ObjectIdentity::VersionAt(const std::string& origin) const {
  // What is checked block by block may come from any file.
  return {attr_.size_bytes, verity_ ? Pin{} : attr_.pins.at(origin)};
}

std::variant<std::string, Failure> ObjectIdentity::PinOrigin(
    const std::string& origin, const std::string& url, const ObjectVersion& version, bool is_open,
    const std::function<bool(const std::string& origin)>& is_used) {
  if (is_open && version.size_bytes != attr_.size_bytes) {
    return Failure{Kind::kChanged, ESTALE,
                   url + ": changed since it was mounted (size was " +
                       std::to_string(attr_.size_bytes) + ", is " +
                       std::to_string(version.size_bytes) + ")"};
  }
  ObjectAttr with_pin = attr_;
  std::erase_if(with_pin.pins, [&](const auto& pin) { return !is_used(pin.first); });
  with_pin.size_bytes = version.size_bytes;
  with_pin.pins[origin] = version.pin;
  auto text = EncodeAttr(with_pin);
  if (!text.ok()) {
    return Failure{Kind::kRefused, EOPNOTSUPP, url + ": " + text.status().message()};
  }
  attr_ = std::move(with_pin);
  return std::move(text).value();
}

cachecore::ObjectFacts ObjectIdentity::FactsOf(const ObjectVersion& version) const {
  const std::string& kind = version.pin.kind;
  const bool has_validator = verity_ || (!kind.empty() && !kind.starts_with("weak_"));
  return {version.modified_s, version.modified_ns, has_validator};
}

}  // namespace fetcher
