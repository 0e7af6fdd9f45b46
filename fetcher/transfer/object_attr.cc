#include "fetcher/transfer/object_attr.h"

#include <cerrno>
#include <limits>
#include <nlohmann/json.hpp>

#include "cachecore/base/digest.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/values/limits.h"

namespace fetcher {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

std::string PinName(const std::string& url) {
  if (url.size() <= cachecore::kPinNameBytesMax) return url;
  return cachecore::DigestOf(url);
}

Result<std::string> EncodeAttr(const ObjectAttr& attr) {
  json pins = json::object();
  for (const auto& [origin, pin] : attr.pins) {
    json& entry = pins[origin] = json::object();
    if (!pin.kind.empty()) entry[pin.kind] = pin.value;
  }
  // Everything here is plain ASCII: IsUrlText and IsPlainText have seen to it.
  std::string text = json{{"size", attr.size_bytes}, {"pins", pins}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
  if (text.size() > cachecore::wire::kMaxAttrSize) {
    return Status(E2BIG, "no room to pin another origin");
  }
  return text;
}

Result<ObjectAttr> DecodeAttr(std::string_view text) {
  const Status bad(EBADMSG, "the object's attr is not this fetcher's");
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return bad;
  const auto size = root.find("size");
  const auto pins = root.find("pins");
  if (size == root.end() || !size->is_number_unsigned() || pins == root.end() ||
      !pins->is_object()) {
    return bad;
  }
  ObjectAttr attr;
  attr.size_bytes = size->get<uint64_t>();
  if (attr.size_bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return bad;
  for (const auto& [origin, entry] : pins->items()) {
    if (!entry.is_object() || entry.size() > 1) return bad;
    Pin& pin = attr.pins[PinName(origin)];  // Attrs of old have long names too.
    if (entry.empty()) continue;
    // A validator without a kind would be written back as none at all.
    if (entry.begin().key().empty() || !entry.begin()->is_string()) return bad;
    pin = {entry.begin().key(), entry.begin()->get<std::string>()};
  }
  return attr;
}

}  // namespace fetcher
