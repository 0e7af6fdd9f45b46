// Input: a byte with the length of the key, the key, the value.

#include <xxhash.h>

#include <algorithm>
#include <string>

#include "cachecore/store/metadata_schema.h"
#include "tests/fuzz/fuzz_target.h"

namespace schema = cachecore::schema;

namespace {

// As the schema seals its values; without it no mutated value would get past the checksum.
std::string Seal(std::string_view key, std::string_view payload) {
  const uint64_t sum = XXH64(payload.data(), payload.size(), XXH64(key.data(), key.size(), 0));
  std::string value(payload);
  for (int shift = 56; shift >= 0; shift -= 8) value.push_back(static_cast<char>(sum >> shift));
  return value;
}

void DecodeAll(std::string_view key, std::string_view value) {
  static_cast<void>(schema::Describe(key, value).size());
  schema::DecodeVersion(value).IgnoreError("any outcome but a crash is right");
  schema::DecodeCounter(cachecore::Counter::kMsgId, value)
      .IgnoreError("any outcome but a crash is right");
  schema::DecodeVolume(key, value).IgnoreError("any outcome but a crash is right");
  schema::DecodeVolumeIndex(key, value).IgnoreError("any outcome but a crash is right");
  schema::DecodeObject(key, value).IgnoreError("any outcome but a crash is right");
  schema::DecodeObjectIndex(key, value).IgnoreError("any outcome but a crash is right");
  schema::DecodeJournal(key, value).IgnoreError("any outcome but a crash is right");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = AsText(data, size);
  if (input.empty()) return 0;
  const size_t key_size = std::min<size_t>(data[0], size - 1);
  const std::string_view key = input.substr(1, key_size);
  const std::string_view value = input.substr(1 + key_size);
  DecodeAll(key, value);
  DecodeAll(key, Seal(key, value));
  static_cast<void>(schema::MergePresence({key, value}).size());
  schema::ParseBootId(std::string(value)).IgnoreError("any outcome but a crash is right");
  return 0;
}
