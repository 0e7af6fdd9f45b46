// metadata_schema: the metadata store's keys and values as bytes.  Pure: no I/O, no state.
//
// Model    a key is one letter, the record's kind, then fixed-size big-endian numbers, then at most
//          one string: keys sort by kind and number, so a dump has one order.  A value ends in a
//          checksum over its key and itself, so neither a flipped bit nor a value under another
//          record's key decodes.  Presence values have none: they are merge operands that RocksDB
//          joins, and its block and log checksums cover them.
// Errors   Decode*: EBADMSG, naming the record and what is wrong with it.
// See      docs/format.md.

#ifndef CACHECORE_STORE_METADATA_SCHEMA_H_
#define CACHECORE_STORE_METADATA_SCHEMA_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/store/metadata_store.h"
#include "cachecore/values/ids.h"

namespace cachecore::schema {

// 1: journal records also listed FUSE requests.  2: objects had no digest.  3: nor facts.  4: there
// were no use records.  5: nor choices.
inline constexpr uint32_t kVersion = 6;

// The kinds.
inline constexpr char kBootPresence = 'B';
inline constexpr char kCounter = 'C';
inline constexpr char kDurablePresence = 'D';
inline constexpr char kVolumeIndex = 'K';
inline constexpr char kObjectIndex = 'N';
inline constexpr char kObject = 'O';
inline constexpr char kChoice = 'P';
inline constexpr char kQuarantine = 'Q';
inline constexpr char kJournal = 'R';
inline constexpr char kSchemaVersion = 'S';
inline constexpr char kUse = 'U';
inline constexpr char kVolume = 'V';

// A boot id's 16 bytes from its text, as in /proc/sys/kernel/random/boot_id.  EINVAL if it is not
// one.
Result<std::string> ParseBootId(const std::string& text);

std::string VersionKey();
std::string CounterKey(Counter counter);
std::string VolumeKey(ObjectNumber number);
std::string VolumeIndexKey(std::string_view volume_key);
std::string ObjectKey(ObjectNumber number);
std::string ObjectIndexKey(ObjectNumber volume, std::string_view cookie);
std::string JournalKey(MsgId msg_id);
// An object's presence: the keys with this prefix, each the prefix and a leaf's number.
std::string DurablePresencePrefix(ObjectNumber object);
std::string BootPresencePrefix(std::string_view boot_id, ObjectNumber object);
std::string PresenceKey(std::string_view prefix, uint32_t leaf);
// An object's uses: the keys with this prefix, each the prefix and a leaf's number.
std::string UsePrefix(ObjectNumber object);
std::string UseKey(ObjectNumber object, uint32_t leaf);
std::string ChoiceKey(std::string_view name);
// Where the bytes of a damaged record are kept; `object` is the object that it was taken with, or
// 0.
std::string QuarantineKey(ObjectNumber object, std::string_view damaged_key);
// The first key after every key that starts with `prefix`.  REQUIRES: a byte of it is not 0xff.
std::string PrefixEnd(std::string prefix);

std::string EncodeVersion(uint32_t version);
std::string EncodeCounter(Counter counter, uint64_t next);
std::string EncodeVolume(const VolumeRecord& volume);
std::string EncodeVolumeIndex(const VolumeRecord& volume);
std::string EncodeObject(const ObjectRecord& object);
std::string EncodeObjectIndex(const ObjectRecord& object);
std::string EncodeJournal(const JournalRecord& request);
std::string EncodeUse(const UseRecord& use);
std::string EncodeChoice(const Choice& choice);

Result<uint32_t> DecodeVersion(std::string_view value);
// EPROTO, naming the directory and the cure, for a version that is newer than this program's.
Status CheckVersion(const std::string& directory, uint32_t version);
Result<uint64_t> DecodeCounter(Counter counter, std::string_view value);
Result<VolumeRecord> DecodeVolume(std::string_view key, std::string_view value);
Result<VolumeRecord> DecodeVolumeIndex(std::string_view key, std::string_view value);
Result<ObjectRecord> DecodeObject(std::string_view key, std::string_view value);
// Fills number, volume and cookie only.
Result<ObjectRecord> DecodeObjectIndex(std::string_view key, std::string_view value);
Result<JournalRecord> DecodeJournal(std::string_view key, std::string_view value);
Result<UseRecord> DecodeUse(std::string_view key, std::string_view value);
Result<Choice> DecodeChoice(std::string_view key, std::string_view value);
// The number in a key of VolumeKey's or ObjectKey's form; 0 if it has another length.
uint64_t NumberOf(std::string_view key);
// A presence key taken apart.  EBADMSG if it is none.
struct PresenceKeyParts {
  std::string_view boot_id;  // Empty in a durable one's.
  ObjectNumber object;
  uint32_t leaf = 0;
};
Result<PresenceKeyParts> ParsePresenceKey(std::string_view key);
// The leaf's number from a presence key.  REQUIRES: the key has PresenceKey's form.
uint32_t LeafOf(std::string_view presence_key);

// The union of presence values, oldest first.  If one does not decode, the result is a value that
// does not decode either and that holds the first such one: damage must stay visible until a reader
// quarantines it, and must not fail the merge, which would stop the whole database.
std::string MergePresence(const std::vector<std::string_view>& values);

// A presence value without the blocks [begin, end) of its leaf; "" when none are left.  EBADMSG if
// it does not decode.
Result<std::string> WithoutBlocks(std::string_view presence, uint32_t begin, uint32_t end);

// A counter's name, or null when there is no such counter.
const char* NameOf(Counter counter);

// Bytes as text for people, in double quotes; what is not printable is \xHH.
std::string Quoted(std::string_view bytes);

// One record as one line of text, for people and for golden files.  What does not decode is shown
// as "damaged".
std::string Describe(std::string_view key, std::string_view value);

}  // namespace cachecore::schema

#endif  // CACHECORE_STORE_METADATA_SCHEMA_H_
