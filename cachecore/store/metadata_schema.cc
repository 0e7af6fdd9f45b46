#include "cachecore/store/metadata_schema.h"

#include <glog/logging.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "cachecore/values/presence_leaf.h"

namespace cachecore::schema {
namespace {

constexpr size_t kBootIdSize = 16;
constexpr size_t kChecksumSize = 8;
constexpr uint8_t kStaleFlag = 1, kVerityFlag = 2, kFactsFlag = 4;
constexpr char kDamagedTag = '\xff';

template <typename Int>
void AppendInt(Int value, std::string* out) {
  for (size_t i = sizeof(Int); i-- > 0;) {
    out->push_back(static_cast<char>(static_cast<uint8_t>(value >> (8 * i))));
  }
}

void AppendString(std::string_view text, std::string* out) {
  AppendInt(static_cast<uint32_t>(text.size()), out);
  out->append(text);
}

// Takes fields off the front of some bytes; after the first that is not there, everything is zero
// and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <typename Int>
  Int Take() {
    Int value = 0;
    for (const char byte : TakeBytes(sizeof(Int))) {
      value = static_cast<Int>((uint64_t{value} << 8) | static_cast<uint8_t>(byte));
    }
    return value;
  }
  std::string_view TakeBytes(size_t size) {
    if (size > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  std::string TakeString() { return std::string(TakeBytes(Take<uint32_t>())); }
  std::string TakeRest() { return std::string(TakeBytes(rest_.size())); }

  bool ok() const { return ok_; }
  bool done() const { return ok_ && rest_.empty(); }
  size_t size() const { return rest_.size(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

std::string NumberedKey(char kind, uint64_t number) {
  std::string key(1, kind);
  AppendInt(number, &key);
  return key;
}

uint64_t Checksum(std::string_view key, std::string_view payload) {
  return XXH64(payload.data(), payload.size(), XXH64(key.data(), key.size(), 0));
}

std::string Seal(std::string_view key, std::string payload) {
  AppendInt(Checksum(key, payload), &payload);
  return payload;
}

// A key without its kind.  None is not a key, yet nothing a caller passes may throw.
std::string_view AfterKind(std::string_view key) { return key.substr(key.empty() ? 0 : 1); }

Status Damaged(const char* what, const char* why) {
  return Status(EBADMSG, std::string(what) + " record is damaged: " + why);
}

Result<std::string_view> Unseal(const char* what, std::string_view key, std::string_view value) {
  if (value.size() < kChecksumSize) return Damaged(what, "shorter than its checksum");
  const std::string_view payload = value.substr(0, value.size() - kChecksumSize);
  if (Reader(value.substr(payload.size())).Take<uint64_t>() != Checksum(key, payload)) {
    return Damaged(what, "its checksum does not match");
  }
  return payload;
}

Result<uint64_t> UnsealNumber(const char* what, std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal(what, key, value));
  Reader reader(payload);
  const auto number = reader.Take<uint64_t>();
  if (!reader.done()) return Damaged(what, "wrong length");
  return number;
}

std::string SealNumber(const std::string& key, uint64_t number) {
  std::string payload;
  AppendInt(number, &payload);
  return Seal(key, std::move(payload));
}

}  // namespace

Result<std::string> ParseBootId(const std::string& text) {
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '-' && (i == 8 || i == 13 || i == 18 || i == 23)) continue;
    digits.push_back(text[i]);
  }
  if (text.size() != 36 || digits.size() != 2 * kBootIdSize ||
      digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
    return Status(
        EINVAL, "boot id \"" + text + "\" is not of the form 01234567-89ab-cdef-0123-456789abcdef");
  }
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string VersionKey() { return std::string(1, kSchemaVersion); }

std::string CounterKey(Counter counter) { return {kCounter, static_cast<char>(counter)}; }

std::string VolumeKey(ObjectNumber number) { return NumberedKey(kVolume, number.value); }

std::string VolumeIndexKey(std::string_view volume_key) {
  return std::string(1, kVolumeIndex).append(volume_key);
}

std::string ObjectKey(ObjectNumber number) { return NumberedKey(kObject, number.value); }

std::string ObjectIndexKey(ObjectNumber volume, std::string_view cookie) {
  return NumberedKey(kObjectIndex, volume.value).append(cookie);
}

std::string JournalKey(MsgId msg_id) {
  std::string key(1, kJournal);
  AppendInt(msg_id.value, &key);
  return key;
}

std::string DurablePresencePrefix(ObjectNumber object) {
  return NumberedKey(kDurablePresence, object.value);
}

std::string BootPresencePrefix(std::string_view boot_id, ObjectNumber object) {
  CHECK_EQ(boot_id.size(), kBootIdSize);
  std::string key(1, kBootPresence);
  key.append(boot_id);
  AppendInt(object.value, &key);
  return key;
}

std::string PresenceKey(std::string_view prefix, uint32_t leaf) {
  std::string key(prefix);
  AppendInt(leaf, &key);
  return key;
}

std::string UsePrefix(ObjectNumber object) { return NumberedKey(kUse, object.value); }

std::string UseKey(ObjectNumber object, uint32_t leaf) {
  return PresenceKey(UsePrefix(object), leaf);
}

std::string ChoiceKey(std::string_view name) { return std::string(1, kChoice).append(name); }

std::string QuarantineKey(ObjectNumber object, std::string_view damaged_key) {
  return NumberedKey(kQuarantine, object.value).append(damaged_key);
}

std::string PrefixEnd(std::string prefix) {
  while (prefix.back() == '\xff') prefix.pop_back();
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

std::string EncodeVersion(uint32_t version) {
  std::string payload;
  AppendInt(version, &payload);
  return Seal(VersionKey(), std::move(payload));
}

std::string EncodeCounter(Counter counter, uint64_t next) {
  return SealNumber(CounterKey(counter), next);
}

std::string EncodeVolume(const VolumeRecord& volume) {
  return Seal(VolumeKey(volume.number), volume.key);
}

std::string EncodeVolumeIndex(const VolumeRecord& volume) {
  return SealNumber(VolumeIndexKey(volume.key), volume.number.value);
}

std::string EncodeObject(const ObjectRecord& object) {
  std::string payload;
  AppendInt(object.volume.value, &payload);
  AppendInt(object.size_bytes, &payload);
  const int flags = (object.stale ? kStaleFlag : 0) | (object.verity ? kVerityFlag : 0) |
                    (object.facts ? kFactsFlag : 0);
  AppendInt(static_cast<uint8_t>(flags), &payload);
  AppendString(object.cookie, &payload);
  AppendString(object.attr, &payload);
  if (object.verity) payload.append(object.verity->begin(), object.verity->end());
  if (object.facts) {
    AppendInt(object.facts->modified_s, &payload);
    AppendInt(object.facts->modified_ns, &payload);
    AppendInt(uint8_t{object.facts->has_validator}, &payload);
  }
  return Seal(ObjectKey(object.number), std::move(payload));
}

std::string EncodeObjectIndex(const ObjectRecord& object) {
  return SealNumber(ObjectIndexKey(object.volume, object.cookie), object.number.value);
}

std::string EncodeJournal(const JournalRecord& request) {
  std::string payload;
  AppendInt(request.opcode, &payload);
  AppendInt(request.object.value, &payload);
  AppendInt(request.range.begin, &payload);
  AppendInt(request.range.end, &payload);
  AppendInt(request.generation.value, &payload);
  return Seal(JournalKey(request.msg_id), std::move(payload));
}

std::string EncodeUse(const UseRecord& use) {
  std::string payload;
  for (const uint32_t seconds : use.seconds) AppendInt(seconds, &payload);
  return Seal(UseKey(use.object, use.leaf), std::move(payload));
}

std::string EncodeChoice(const Choice& choice) {
  return Seal(ChoiceKey(choice.name), choice.value);
}

Result<uint32_t> DecodeVersion(std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal("schema version", VersionKey(), value));
  // A newer schema may have more after its number.
  Reader reader(payload);
  const auto version = reader.Take<uint32_t>();
  if (!reader.ok()) return Damaged("schema version", "wrong length");
  return version;
}

Status CheckVersion(const std::string& directory, uint32_t version) {
  if (version <= kVersion) return Status();
  return Status(EPROTO, directory + " was written by a newer Holdfast (schema " +
                            std::to_string(version) + ", this program knows up to " +
                            std::to_string(kVersion) +
                            "): use that Holdfast, or another --cache-dir");
}

Result<uint64_t> DecodeCounter(Counter counter, std::string_view value) {
  return UnsealNumber("counter", CounterKey(counter), value);
}

Result<VolumeRecord> DecodeVolume(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal("volume", key, value));
  Reader reader(AfterKind(key));
  VolumeRecord volume;
  volume.number.value = reader.Take<uint64_t>();
  volume.key = payload;
  if (!reader.done()) return Damaged("volume", "its key has the wrong length");
  return volume;
}

Result<VolumeRecord> DecodeVolumeIndex(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const uint64_t number, UnsealNumber("volume key", key, value));
  if (key.empty()) return Damaged("volume key", "its key has the wrong length");
  return VolumeRecord{ObjectNumber{number}, std::string(AfterKind(key))};
}

Result<ObjectRecord> DecodeObject(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal("object", key, value));
  Reader key_reader(AfterKind(key));
  Reader reader(payload);
  ObjectRecord object;
  object.number.value = key_reader.Take<uint64_t>();
  object.volume.value = reader.Take<uint64_t>();
  object.size_bytes = reader.Take<uint64_t>();
  const auto flags = reader.Take<uint8_t>();
  object.stale = (flags & kStaleFlag) != 0;
  object.cookie = reader.TakeString();
  object.attr = reader.TakeString();
  if ((flags & kVerityFlag) != 0) {
    const std::string_view digest = reader.TakeBytes(sizeof(Digest));
    object.verity.emplace();
    std::copy(digest.begin(), digest.end(), object.verity->begin());
  }
  if ((flags & kFactsFlag) != 0) {
    object.facts =
        ObjectFacts{reader.Take<uint64_t>(), reader.Take<uint32_t>(), reader.Take<uint8_t>() != 0};
  }
  if (!key_reader.done() || !reader.done()) return Damaged("object", "wrong length");
  if (flags > (kStaleFlag | kVerityFlag | kFactsFlag)) return Damaged("object", "unknown flags");
  if (object.size_bytes > PresenceMap::kMaxObjectSize) return Damaged("object", "impossible size");
  return object;
}

Result<ObjectRecord> DecodeObjectIndex(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const uint64_t number, UnsealNumber("object key", key, value));
  Reader reader(AfterKind(key));
  ObjectRecord object;
  object.number.value = number;
  object.volume.value = reader.Take<uint64_t>();
  object.cookie = reader.TakeRest();
  if (!reader.ok()) return Damaged("object key", "its key has the wrong length");
  return object;
}

Result<JournalRecord> DecodeJournal(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal("journal", key, value));
  Reader key_reader(AfterKind(key));
  Reader reader(payload);
  JournalRecord request;
  request.msg_id.value = key_reader.Take<uint32_t>();
  request.opcode = reader.Take<uint32_t>();
  request.object.value = reader.Take<uint64_t>();
  request.range.begin = reader.Take<uint64_t>();
  request.range.end = reader.Take<uint64_t>();
  request.generation.value = reader.Take<uint64_t>();
  // Schema 1 went on with the FUSE requests that waited.
  while (reader.ok() && !reader.done()) (void)reader.Take<uint64_t>();
  if (!key_reader.done() || !reader.done()) return Damaged("journal", "wrong length");
  if (request.range.begin > request.range.end) return Damaged("journal", "range runs backwards");
  return request;
}

Result<UseRecord> DecodeUse(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal("use", key, value));
  Reader key_reader(AfterKind(key));
  Reader reader(payload);
  UseRecord use;
  use.object.value = key_reader.Take<uint64_t>();
  use.leaf = key_reader.Take<uint32_t>();
  for (uint32_t& seconds : use.seconds) seconds = reader.Take<uint32_t>();
  if (!key_reader.done() || !reader.done()) return Damaged("use", "wrong length");
  return use;
}

Result<Choice> DecodeChoice(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload, Unseal("choice", key, value));
  return Choice{std::string(AfterKind(key)), std::string(payload)};
}

uint64_t NumberOf(std::string_view key) {
  return key.size() == 1 + sizeof(uint64_t) ? Reader(AfterKind(key)).Take<uint64_t>() : 0;
}

Result<PresenceKeyParts> ParsePresenceKey(std::string_view key) {
  Reader reader(AfterKind(key));
  PresenceKeyParts parts;
  if (key.starts_with(kBootPresence)) parts.boot_id = reader.TakeBytes(kBootIdSize);
  parts.object.value = reader.Take<uint64_t>();
  parts.leaf = reader.Take<uint32_t>();
  if (!reader.done()) return Damaged("presence", "its key has the wrong length");
  return parts;
}

uint32_t LeafOf(std::string_view presence_key) {
  CHECK_GE(presence_key.size(), sizeof(uint32_t));
  return Reader(presence_key.substr(presence_key.size() - sizeof(uint32_t))).Take<uint32_t>();
}

std::string MergePresence(const std::vector<std::string_view>& values) {
  PresenceLeaf leaf;
  for (const std::string_view value : values) {
    uint32_t added;
    if (leaf.Merge(value, &added).ok()) continue;
    if (!value.empty() && value[0] == kDamagedTag) return std::string(value);
    return std::string(1, kDamagedTag).append(value);
  }
  return leaf.Encode();
}

Result<std::string> WithoutBlocks(std::string_view presence, uint32_t begin, uint32_t end) {
  PresenceLeaf leaf;
  uint32_t added;
  RETURN_IF_ERROR(leaf.Merge(presence, &added));
  leaf.Remove(begin, end);
  return leaf.count() == 0 ? std::string() : leaf.Encode();
}

const char* NameOf(Counter counter) {
  switch (counter) {
    case Counter::kObjectNumber:
      return "object_number";
    case Counter::kMsgId:
      return "msg_id";
    case Counter::kObjectId:
      return "object_id";
    case Counter::kGeneration:
      return "generation";
  }
  return nullptr;
}

}  // namespace cachecore::schema
