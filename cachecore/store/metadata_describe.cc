// metadata_schema's records as text for people.

#include <cerrno>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/store/metadata_schema.h"
#include "cachecore/values/presence_leaf.h"

namespace cachecore::schema {

std::string Quoted(std::string_view bytes) {
  std::string text = "\"";
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\') {
      text.push_back(c);
    } else {
      text += "\\x" + HexText({&c, 1});
    }
  }
  return text + "\"";
}

namespace {

std::string Numbered(const char* name, uint64_t number) {
  return std::string(" ") + name + "=" + std::to_string(number);
}

std::string BootIdText(std::string_view bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text.push_back('-');
    text += HexText(bytes.substr(i, 1));
  }
  return text;
}

Result<std::string> DescribeCounter(std::string_view key, std::string_view value) {
  const char* name =
      key.size() == 2 ? NameOf(static_cast<Counter>(static_cast<uint8_t>(key[1]))) : nullptr;
  if (name == nullptr) return Status(EBADMSG, "counter record is damaged: unknown counter");
  ASSIGN_OR_RETURN(const uint64_t next,
                   DecodeCounter(static_cast<Counter>(static_cast<uint8_t>(key[1])), value));
  return std::string("counter ") + name + Numbered("next", next);
}

Result<std::string> DescribeObject(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const ObjectRecord object, DecodeObject(key, value));
  return "object" + Numbered("number", object.number.value) +
         Numbered("volume", object.volume.value) + Numbered("size", object.size_bytes) +
         Numbered("stale", object.stale ? 1 : 0) + " cookie=" + Quoted(object.cookie) +
         " attr=" + Quoted(object.attr) +
         (object.verity ? " verity=" + DigestText(*object.verity) : "");
}

Result<std::string> DescribeJournal(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const JournalRecord request, DecodeJournal(key, value));
  return "request" + Numbered("msg", request.msg_id.value) + Numbered("opcode", request.opcode) +
         Numbered("object", request.object.value) + " range=" + request.range.ToString() +
         Numbered("generation", request.generation.value);
}

Result<std::string> DescribePresence(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const PresenceKeyParts parts, ParsePresenceKey(key));
  PresenceLeaf leaf;
  uint32_t added;
  RETURN_IF_ERROR(leaf.Merge(value, &added));
  std::string line =
      parts.boot_id.empty() ? "presence durable" : "presence boot=" + BootIdText(parts.boot_id);
  line += Numbered("object", parts.object.value) + Numbered("leaf", parts.leaf) + " bytes=";
  const uint64_t base = uint64_t{parts.leaf} * PresenceLeaf::kBytes;
  for (uint32_t end = 0;;) {
    const uint32_t begin = leaf.FirstPresent(end, PresenceLeaf::kBlocks);
    if (begin == PresenceLeaf::kBlocks) return line;
    end = leaf.FirstMissing(begin, PresenceLeaf::kBlocks);
    line += ByteRange{base + begin * kBlockSize, base + end * kBlockSize}.ToString();
  }
}

Result<std::string> DescribeUse(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const UseRecord use, DecodeUse(key, value));
  std::string line =
      "used" + Numbered("object", use.object.value) + Numbered("leaf", use.leaf) + " parts=";
  for (size_t part = 0; part < use.seconds.size(); ++part) {
    if (use.seconds[part] != 0) {
      line += "[" + std::to_string(part) + ": " + std::to_string(use.seconds[part]) + "]";
    }
  }
  return line;
}

Result<std::string> DescribeRecord(std::string_view key, std::string_view value) {
  switch (key.empty() ? '\0' : key[0]) {
    case kBootPresence:
    case kDurablePresence:
      return DescribePresence(key, value);
    case kCounter:
      return DescribeCounter(key, value);
    case kVolumeIndex: {
      ASSIGN_OR_RETURN(const VolumeRecord volume, DecodeVolumeIndex(key, value));
      return "volume_key key=" + Quoted(volume.key) + Numbered("number", volume.number.value);
    }
    case kObjectIndex: {
      ASSIGN_OR_RETURN(const ObjectRecord object, DecodeObjectIndex(key, value));
      return "object_key" + Numbered("volume", object.volume.value) +
             " cookie=" + Quoted(object.cookie) + Numbered("number", object.number.value);
    }
    case kObject:
      return DescribeObject(key, value);
    case kChoice: {
      ASSIGN_OR_RETURN(const Choice choice, DecodeChoice(key, value));
      return "choice name=" + Quoted(choice.name) + " value=" + Quoted(choice.value);
    }
    case kQuarantine: {
      const std::string_view numbered = key.substr(0, 1 + sizeof(uint64_t));
      return "quarantined" + Numbered("object", NumberOf(numbered)) +
             " key=" + Quoted(key.substr(numbered.size())) + " value=" + Quoted(value);
    }
    case kJournal:
      return DescribeJournal(key, value);
    case kSchemaVersion: {
      ASSIGN_OR_RETURN(const uint32_t version, DecodeVersion(value));
      return "schema" + Numbered("version", version);
    }
    case kUse:
      return DescribeUse(key, value);
    case kVolume: {
      ASSIGN_OR_RETURN(const VolumeRecord volume, DecodeVolume(key, value));
      return "volume" + Numbered("number", volume.number.value) + " key=" + Quoted(volume.key);
    }
    default:
      return Status(EBADMSG, "unknown record is damaged: no record kind has this key");
  }
}

}  // namespace

std::string Describe(std::string_view key, std::string_view value) {
  Result<std::string> line = DescribeRecord(key, value);
  if (line.ok()) return std::move(line).value();
  return "damaged key=" + Quoted(key) + " value=" + Quoted(value) + " (" + line.status().message() +
         ")";
}

}  // namespace cachecore::schema
