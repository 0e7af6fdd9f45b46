#include "cachecore/base/json_fields.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "cachecore/base/hex.h"

namespace cachecore {

using nlohmann::json;

namespace {

// The length of the UTF-8 sequence at the begin of `text`; 0: it is none.
size_t SequenceLength(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](size_t i, unsigned char low, unsigned char high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1, 0x80, 0xbf) ? 2 : 0;
  if ((first & 0xf0) == 0xe0) {
    const unsigned char low = first == 0xe0 ? 0xa0 : 0x80;   // Not longer than need be,
    const unsigned char high = first == 0xed ? 0x9f : 0xbf;  // and no surrogate.
    return follows(1, low, high) && follows(2, 0x80, 0xbf) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned char low = first == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xf4 ? 0x8f : 0xbf;
    return follows(1, low, high) && follows(2, 0x80, 0xbf) && follows(3, 0x80, 0xbf) ? 4 : 0;
  }
  return 0;
}

std::string EscapedBytes(const std::string& text) {
  std::string escaped;
  for (size_t i = 0; i < text.size();) {
    const size_t length = SequenceLength(std::string_view(text).substr(i));
    if (length == 0) {
      escaped += '\0' + HexText(std::string_view(text).substr(i, 1));
    } else {
      escaped.append(text, i, length);
    }
    i += std::max<size_t>(1, length);
  }
  return escaped;
}

std::string UnescapedBytes(std::string text) {
  if (text.find('\0') == std::string::npos) return text;
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::optional<std::string> byte =
        text[i] == '\0' ? BytesOfHex(std::string_view(text).substr(i + 1, 2)) : std::nullopt;
    const bool is_escape = byte && byte->size() == 1;
    plain += is_escape ? (*byte)[0] : text[i];
    if (is_escape) i += 2;
  }
  return plain;
}

void EscapeStrings(json* value) {
  if (value->is_string()) {
    *value = EscapedBytes(value->get<std::string>());
  } else if (value->is_structured()) {
    for (json& part : *value) EscapeStrings(&part);
  }
}

}  // namespace

const json& JsonField(const json& object, const char* key) {
  static const json kEmpty = json::object();
  if (!object.is_object()) return kEmpty;
  const auto found = object.find(key);
  return found == object.end() ? kEmpty : *found;
}

std::string JsonString(const json& object, const char* key, std::string fallback) {
  const json& field = JsonField(object, key);
  return field.is_string() ? UnescapedBytes(field.get<std::string>()) : std::move(fallback);
}

int64_t JsonInt(const json& object, const char* key, int64_t fallback) {
  const json& field = JsonField(object, key);
  return field.is_number() ? field.get<int64_t>() : fallback;
}

bool JsonBool(const json& object, const char* key, bool fallback) {
  const json& field = JsonField(object, key);
  return field.is_boolean() ? field.get<bool>() : fallback;
}

std::vector<std::string> JsonStrings(const json& object, const char* key) {
  std::vector<std::string> strings;
  const json& field = JsonField(object, key);
  if (!field.is_array()) return strings;
  for (const json& item : field) {
    if (item.is_string()) strings.push_back(UnescapedBytes(item.get<std::string>()));
  }
  return strings;
}

std::string JsonText(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string RecordText(const json& value, int indent) {
  json escaped = value;
  EscapeStrings(&escaped);
  return JsonText(escaped, indent);
}

}  // namespace cachecore
