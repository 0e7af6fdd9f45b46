#include "snapshotter/snapshot_record.h"

#include <cerrno>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

constexpr int kVersion = 1;
constexpr std::pair<Kind, const char*> kKinds[] = {
    {Kind::kView, "view"}, {Kind::kActive, "active"}, {Kind::kCommitted, "committed"}};
constexpr std::pair<Content, const char*> kContents[] = {
    {Content::kFiles, "files"}, {Content::kImage, "image"}, {Content::kNothing, "nothing"}};

template <typename T, size_t N>
const char* NameOf(const std::pair<T, const char*> (&table)[N], T value) {
  for (const auto& [entry, name] : table) {
    if (entry == value) return name;
  }
  return "";
}

// Takes fields out of an object, and remembers whether each was there and of its type.
class Fields {
 public:
  explicit Fields(json object) : object_(std::move(object)) { good_ = object_.is_object(); }

  std::string Text(const char* key) {
    const json value = Take(key);
    if (!value.is_string()) return Bad<std::string>();
    return value.get_ref<const std::string&>();
  }
  template <typename Integer>
  Integer Number(const char* key) {
    const json value = Take(key);
    if (!value.is_number_integer()) return Bad<Integer>();
    return value.get<Integer>();
  }
  template <typename T, size_t N>
  T OneOf(const char* key, const std::pair<T, const char*> (&table)[N]) {
    const std::string word = Text(key);
    for (const auto& [entry, name] : table) {
      if (word == name) return entry;
    }
    return Bad<T>();
  }
  Labels Map(const char* key) {
    const json value = Take(key);
    if (!value.is_object()) return Bad<Labels>();
    Labels labels;
    for (const auto& [name, text] : value.items()) {
      if (!text.is_string()) return Bad<Labels>();
      labels[name] = text.get_ref<const std::string&>();
    }
    return labels;
  }
  // An object of its own; nullopt when there is none.
  std::optional<Fields> Object(const char* key) {
    if (!good_ || !object_.contains(key)) return std::nullopt;
    return Fields(Take(key));
  }
  // Whether every field was there and none is left.
  bool Complete() const { return good_ && object_.empty(); }
  void Fail() { good_ = false; }

 private:
  json Take(const char* key) {
    if (!good_) return {};
    const auto found = object_.find(key);
    if (found == object_.end()) return {};
    json value = std::move(*found);
    object_.erase(found);
    return value;
  }
  template <typename T>
  T Bad() {
    good_ = false;
    return {};
  }

  json object_;
  bool good_ = false;
};

}  // namespace

const char* KindName(Kind kind) { return NameOf(kKinds, kind); }

std::string EncodeRecord(const SnapshotRecord& record) {
  json object = {{"version", kVersion},
                 {"id", record.id},
                 {"name", record.name},
                 {"parent", record.parent},
                 {"kind", KindName(record.kind)},
                 {"content", NameOf(kContents, record.content)},
                 {"labels", record.labels},
                 {"created_ns", record.created_ns},
                 {"updated_ns", record.updated_ns},
                 {"usage", {{"bytes", record.usage.bytes}, {"inodes", record.usage.inodes}}},
                 {"reference", record.reference}};
  if (record.content == Content::kImage) {
    object["image"] = {{"registry", record.image.registry},
                       {"repository", record.image.repository},
                       {"blob", record.image.blob},
                       {"verity", record.image.verity},
                       {"merkle", record.image.merkle}};
  }
  return object.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<SnapshotRecord> DecodeRecord(const std::string& text) {
  Fields fields(json::parse(text, nullptr, /*allow_exceptions=*/false));
  SnapshotRecord record;
  if (fields.Number<int>("version") != kVersion) fields.Fail();
  record.id = fields.Number<uint64_t>("id");
  record.name = fields.Text("name");
  record.parent = fields.Text("parent");
  record.kind = fields.OneOf("kind", kKinds);
  record.content = fields.OneOf("content", kContents);
  record.labels = fields.Map("labels");
  record.created_ns = fields.Number<int64_t>("created_ns");
  record.updated_ns = fields.Number<int64_t>("updated_ns");
  record.reference = fields.Text("reference");
  if (std::optional<Fields> usage = fields.Object("usage")) {
    record.usage = {usage->Number<int64_t>("bytes"), usage->Number<int64_t>("inodes")};
    if (!usage->Complete()) fields.Fail();
  } else {
    fields.Fail();
  }
  std::optional<Fields> image = fields.Object("image");
  if (image.has_value() != (record.content == Content::kImage)) fields.Fail();
  if (image) {
    record.image = {image->Text("registry"), image->Text("repository"), image->Text("blob"),
                    image->Text("verity"), image->Text("merkle")};
    if (!image->Complete()) fields.Fail();
  }
  if (!fields.Complete() || record.name.empty()) {
    return Status(EBADMSG, "this is no record of a snapshot that this version knows");
  }
  return record;
}

}  // namespace snapshotter
