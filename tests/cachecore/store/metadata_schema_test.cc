#include "cachecore/store/metadata_schema.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "cachecore/values/presence_leaf.h"
#include "tests/cachecore/engine/seed.h"

namespace cachecore::schema {
namespace {

constexpr char kBootText[] = "01234567-89ab-cdef-0123-456789abcdef";

std::string RandomBytes(std::mt19937_64* random, size_t max_size) {
  std::string bytes((*random)() % (max_size + 1), '\0');
  for (char& byte : bytes) byte = static_cast<char>((*random)());
  return bytes;
}

ObjectRecord SampleObject() {
  return {.number = {17},
          .volume = {16},
          .cookie = "layer",
          .size_bytes = 1 << 20,
          .stale = false,
          .attr = "etag"};
}

JournalRecord SampleRequest() {
  return {.msg_id = {9}, .opcode = 2, .object = {17}, .range = {4096, 8192}, .generation = {3}};
}

// A record of each kind with a checksum, and whether a key and value decode as that kind.
struct Sample {
  std::string key;
  std::string value;
  std::function<Status(const std::string& key, const std::string& value)> decode;
};

std::vector<Sample> Samples() {
  const VolumeRecord volume{{16}, "images"};
  const ObjectRecord object = SampleObject();
  const JournalRecord request = SampleRequest();
  return {
      {VolumeKey(volume.number), EncodeVolume(volume),
       [](const auto& key, const auto& value) { return DecodeVolume(key, value).status(); }},
      {VolumeIndexKey(volume.key), EncodeVolumeIndex(volume),
       [](const auto& key, const auto& value) { return DecodeVolumeIndex(key, value).status(); }},
      {ObjectKey(object.number), EncodeObject(object),
       [](const auto& key, const auto& value) { return DecodeObject(key, value).status(); }},
      {ObjectIndexKey(object.volume, object.cookie), EncodeObjectIndex(object),
       [](const auto& key, const auto& value) { return DecodeObjectIndex(key, value).status(); }},
      {JournalKey(request.msg_id), EncodeJournal(request),
       [](const auto& key, const auto& value) { return DecodeJournal(key, value).status(); }},
      {CounterKey(Counter::kMsgId), EncodeCounter(Counter::kMsgId, 77),
       [](const auto&, const auto& value) {
         return DecodeCounter(Counter::kMsgId, value).status();
       }},
      {UseKey({17}, 3), EncodeUse({{17}, 3, {0, 1700000000}}),
       [](const auto& key, const auto& value) { return DecodeUse(key, value).status(); }},
      {ChoiceKey("pin v/o"), EncodeChoice({"pin v/o", "1"}),
       [](const auto& key, const auto& value) { return DecodeChoice(key, value).status(); }},
      {VersionKey(), EncodeVersion(kVersion),
       [](const auto&, const auto& value) { return DecodeVersion(value).status(); }},
  };
}

TEST(MetadataSchemaTest, EveryRecordSurvivesItsEncoding) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 2000; ++i) {
    const VolumeRecord volume{{random()}, RandomBytes(&random, 255)};
    const auto volume_again = DecodeVolume(VolumeKey(volume.number), EncodeVolume(volume));
    ASSERT_TRUE(volume_again.ok()) << volume_again.status().message();
    EXPECT_EQ(volume_again->number, volume.number);
    EXPECT_EQ(volume_again->key, volume.key);

    const ObjectRecord object{
        .number = {random()},
        .volume = {random()},
        .cookie = RandomBytes(&random, 252),
        .size_bytes = random() % PresenceMap::kMaxObjectSize,
        .stale = random() % 2 == 0,
        .attr = RandomBytes(&random, 4096),
        .verity = random() % 2 == 0 ? std::optional<Digest>(Digest{static_cast<uint8_t>(random())})
                                    : std::nullopt,
        .facts = random() % 2 == 0
                     ? std::optional<ObjectFacts>(ObjectFacts{
                           random(), static_cast<uint32_t>(random()), random() % 2 == 0})
                     : std::nullopt};
    const auto object_again = DecodeObject(ObjectKey(object.number), EncodeObject(object));
    ASSERT_TRUE(object_again.ok()) << object_again.status().message();
    EXPECT_EQ(object_again->number, object.number);
    EXPECT_EQ(object_again->volume, object.volume);
    EXPECT_EQ(object_again->cookie, object.cookie);
    EXPECT_EQ(object_again->size_bytes, object.size_bytes);
    EXPECT_EQ(object_again->stale, object.stale);
    EXPECT_EQ(object_again->attr, object.attr);
    EXPECT_EQ(object_again->verity, object.verity);
    EXPECT_EQ(object_again->facts, object.facts);

    const Choice choice{RandomBytes(&random, 300), RandomBytes(&random, 30)};
    const auto choice_again = DecodeChoice(ChoiceKey(choice.name), EncodeChoice(choice));
    ASSERT_TRUE(choice_again.ok()) << choice_again.status().message();
    EXPECT_EQ(*choice_again, choice);

    JournalRecord request{.msg_id = {static_cast<uint32_t>(random())},
                          .opcode = static_cast<uint32_t>(random()),
                          .object = {random()},
                          .range = ByteRange::At(random() >> 1, random() >> 1),
                          .generation = {random()}};
    const auto request_again = DecodeJournal(JournalKey(request.msg_id), EncodeJournal(request));
    ASSERT_TRUE(request_again.ok()) << request_again.status().message();
    EXPECT_EQ(request_again->msg_id, request.msg_id);
    EXPECT_EQ(request_again->opcode, request.opcode);
    EXPECT_EQ(request_again->object, request.object);
    EXPECT_EQ(request_again->range, request.range);
    EXPECT_EQ(request_again->generation, request.generation);
  }
}

TEST(MetadataSchemaTest, IndexRecordsSurviveTheirEncoding) {
  const VolumeRecord volume{{16}, std::string("a\0b", 3)};
  const auto volume_again =
      DecodeVolumeIndex(VolumeIndexKey(volume.key), EncodeVolumeIndex(volume));
  ASSERT_TRUE(volume_again.ok());
  EXPECT_EQ(volume_again->number, volume.number);
  EXPECT_EQ(volume_again->key, volume.key);
  const ObjectRecord object = SampleObject();
  const auto object_again =
      DecodeObjectIndex(ObjectIndexKey(object.volume, object.cookie), EncodeObjectIndex(object));
  ASSERT_TRUE(object_again.ok());
  EXPECT_EQ(object_again->number, object.number);
  EXPECT_EQ(object_again->volume, object.volume);
  EXPECT_EQ(object_again->cookie, object.cookie);
  EXPECT_EQ(*DecodeCounter(Counter::kMsgId, EncodeCounter(Counter::kMsgId, 77)), 77u);
  EXPECT_EQ(*DecodeVersion(EncodeVersion(5)), 5u);
}

std::string Hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    text += "0123456789abcdef"[static_cast<uint8_t>(c) >> 4];
    text += "0123456789abcdef"[static_cast<uint8_t>(c) & 15];
  }
  return text;
}

TEST(MetadataSchemaTest, TheBytesAreThoseOfTheFormatDocumentsExample) {
  ObjectRecord object = SampleObject();
  object.size_bytes = 10000;
  EXPECT_EQ(Hex(ObjectKey(object.number)), "4f0000000000000011");
  EXPECT_EQ(Hex(EncodeObject(object)),
            "0000000000000010"
            "0000000000002710"
            "00"
            "00000005"
            "6c61796572"
            "00000004"
            "65746167"
            "54e3e0ccf5b7b6da");
  EXPECT_EQ(Hex(ObjectIndexKey(object.volume, object.cookie)), "4e00000000000000106c61796572");
  EXPECT_EQ(Hex(EncodeObjectIndex(object)), "00000000000000114ecfbb62d1a9823b");
  EXPECT_EQ(Hex(EncodeVolume({{16}, "images"})), "696d616765732b754daeef467101");
  EXPECT_EQ(Hex(EncodeVolumeIndex({{16}, "images"})), "00000000000000101032aad995501be9");
  EXPECT_EQ(Hex(EncodeCounter(Counter::kObjectNumber, 80)), "0000000000000050ae807f494c6d5dab");
  EXPECT_EQ(Hex(EncodeVersion(2)), "00000002027968334ba35c01");
  const JournalRecord request{
      .msg_id = {5}, .opcode = 2, .object = {17}, .range = {4096, 8192}, .generation = {1}};
  EXPECT_EQ(Hex(EncodeJournal(request)),
            "00000002"
            "0000000000000011"
            "0000000000001000"
            "0000000000002000"
            "0000000000000001"
            "5b55f755e827d244");
  const std::string boot_id = *ParseBootId(kBootText);
  EXPECT_EQ(Hex(PresenceKey(BootPresencePrefix(boot_id, {17}), 0)),
            "420123456789abcdef0123456789abcdef000000000000001100000000");
}

TEST(MetadataSchemaTest, AnyFlippedBitIsDamage) {
  for (const Sample& sample : Samples()) {
    ASSERT_TRUE(sample.decode(sample.key, sample.value).ok());
    for (size_t bit = 0; bit < 8 * sample.value.size(); ++bit) {
      std::string flipped = sample.value;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_EQ(sample.decode(sample.key, flipped).error(), EBADMSG)
          << "bit " << bit << " of " << Describe(sample.key, sample.value);
    }
  }
}

TEST(MetadataSchemaTest, AnyOtherLengthIsDamage) {
  for (const Sample& sample : Samples()) {
    for (size_t size = 0; size < sample.value.size(); ++size) {
      ASSERT_EQ(sample.decode(sample.key, sample.value.substr(0, size)).error(), EBADMSG);
    }
    EXPECT_EQ(sample.decode(sample.key, sample.value + "x").error(), EBADMSG);
  }
}

TEST(MetadataSchemaTest, AValueUnderAnotherRecordsKeyIsDamage) {
  EXPECT_EQ(DecodeObject(ObjectKey({18}), EncodeObject(SampleObject())).status().error(), EBADMSG);
  EXPECT_EQ(DecodeCounter(Counter::kObjectId, EncodeCounter(Counter::kMsgId, 1)).status().error(),
            EBADMSG);
}

TEST(MetadataSchemaTest, ARecordThatWasWrittenWrongIsDamageThoughItsChecksumIsRight) {
  ObjectRecord object = SampleObject();
  object.size_bytes = PresenceMap::kMaxObjectSize + 1;
  EXPECT_EQ(DecodeObject(ObjectKey(object.number), EncodeObject(object)).status().message(),
            "object record is damaged: impossible size");
  JournalRecord request = SampleRequest();
  request.range = {2, 1};
  EXPECT_EQ(DecodeJournal(JournalKey(request.msg_id), EncodeJournal(request)).status().message(),
            "journal record is damaged: range runs backwards");
}

TEST(MetadataSchemaTest, KeysSortByKindThenNumber) {
  EXPECT_LT(ObjectKey({255}), ObjectKey({256}));
  EXPECT_LT(JournalKey({1}), JournalKey({UINT32_MAX}));
  const std::string prefix = DurablePresencePrefix({7});
  EXPECT_LT(PresenceKey(prefix, 255), PresenceKey(prefix, 256));
  EXPECT_LT(PresenceKey(prefix, UINT32_MAX), PresenceKey(DurablePresencePrefix({8}), 0));
  EXPECT_EQ(LeafOf(PresenceKey(prefix, 0x01020304)), 0x01020304u);
  EXPECT_EQ(NumberOf(ObjectKey({99})), 99u);
  EXPECT_EQ(NumberOf("O"), 0u);
}

TEST(MetadataSchemaTest, APrefixEndsBeforeTheFirstKeyWithoutIt) {
  EXPECT_EQ(PrefixEnd("B"), "C");
  EXPECT_EQ(PrefixEnd("B\xff\xff"), "C");
  EXPECT_EQ(PrefixEnd(DurablePresencePrefix({7})), DurablePresencePrefix({8}));
  EXPECT_GT(PrefixEnd("D\x01\xff"), PresenceKey("D\x01\xff", UINT32_MAX));
}

TEST(MetadataSchemaTest, ABootIdIsAUuidAndNothingElse) {
  const Result<std::string> bytes = ParseBootId(kBootText);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(*bytes, "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef");
  for (const std::string text :
       {"", "boot", "01234567-89ab-cdef-0123-456789abcdeg", "0123456789abcdef0123456789abcdef",
        "01234567-89ab-cdef-0123-456789abcdef0"}) {
    EXPECT_EQ(ParseBootId(text).status().error(), EINVAL) << text;
  }
}

TEST(MetadataSchemaTest, PresenceMergesToTheUnion) {
  const std::string merged =
      MergePresence({PresenceLeaf::EncodeRun(0, 2), PresenceLeaf::EncodeRun(1, 5)});
  EXPECT_EQ(merged, PresenceLeaf::EncodeRun(0, 5));
  EXPECT_EQ(MergePresence({merged, merged}), merged);
}

TEST(MetadataSchemaTest, DamagedPresenceStaysVisibleWhateverIsMergedWithIt) {
  const std::string run = PresenceLeaf::EncodeRun(0, 2);
  const std::string damaged = MergePresence({run, "garbage", run});
  EXPECT_EQ(damaged, "\xffgarbage");
  EXPECT_EQ(MergePresence({run, damaged}), damaged);
  EXPECT_EQ(MergePresence({damaged, "other"}), damaged);
  EXPECT_EQ(MergePresence({""}), "\xff");
}

TEST(MetadataSchemaTest, EveryKindOfRecordIsDescribedOnOneLine) {
  const ObjectRecord object{.number = {17},
                            .volume = {16},
                            .cookie = std::string("c\"\0\n\\", 5),
                            .size_bytes = 9000,
                            .stale = true,
                            .attr = "etag=\x01"};
  EXPECT_EQ(Describe(ObjectKey({17}), EncodeObject(object)),
            "object number=17 volume=16 size=9000 stale=1 cookie=\"c\\x22\\x00\\x0a\\x5c\" "
            "attr=\"etag=\\x01\"");
  EXPECT_EQ(Describe(JournalKey({9}), EncodeJournal(SampleRequest())),
            "request msg=9 opcode=2 object=17 range=[4096, 8192) generation=3");
  EXPECT_EQ(Describe(UseKey({17}, 3), EncodeUse({{17}, 3, {0, 1700000000}})),
            "used object=17 leaf=3 parts=[1: 1700000000]");
  PresenceLeaf leaf;
  leaf.Add(0, 1);
  leaf.Add(3, 5);
  EXPECT_EQ(Describe(PresenceKey(DurablePresencePrefix({17}), 1), leaf.Encode()),
            "presence durable object=17 leaf=1 bytes=[134217728, 134221824)"
            "[134230016, 134238208)");
  const std::string boot_id = *ParseBootId(kBootText);
  EXPECT_EQ(
      Describe(PresenceKey(BootPresencePrefix(boot_id, {17}), 0), PresenceLeaf::EncodeRun(0, 1)),
      std::string("presence boot=") + kBootText + " object=17 leaf=0 bytes=[0, 4096)");
  EXPECT_EQ(Describe(QuarantineKey({17}, ObjectKey({17})), "\xff"),
            "quarantined object=17 key=\"O\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x11\" "
            "value=\"\\xff\"");
}

TEST(MetadataSchemaTest, WhatDoesNotDecodeIsDescribedAsDamaged) {
  EXPECT_EQ(Describe(ObjectKey({1}), "too short to be"),
            "damaged key=\"O\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\" value=\"too short to be\" "
            "(object record is damaged: its checksum does not match)");
  EXPECT_EQ(Describe("", ""),
            "damaged key=\"\" value=\"\" (unknown record is damaged: no record kind has this key)");
}

TEST(MetadataSchemaTest, AnEmptyKeyIsDamagedWhateverItsValueIsSealedWith) {
  for (const std::string& payload : {std::string(), std::string(8, '\0'), std::string(64, '\1')}) {
    const uint64_t sum = XXH64(payload.data(), payload.size(), XXH64("", 0, 0));
    std::string value = payload;
    for (int shift = 56; shift >= 0; shift -= 8) value.push_back(static_cast<char>(sum >> shift));
    EXPECT_EQ(DecodeVolume("", value).status().error(), EBADMSG);
    EXPECT_EQ(DecodeVolumeIndex("", value).status().error(), EBADMSG);
    EXPECT_EQ(DecodeObject("", value).status().error(), EBADMSG);
    EXPECT_EQ(DecodeObjectIndex("", value).status().error(), EBADMSG);
    EXPECT_EQ(DecodeJournal("", value).status().error(), EBADMSG);
  }
}

TEST(MetadataSchemaTest, AnyKeyAndValueCanBeDescribed) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HOLDFAST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string kinds = "BCDKNOQRSV?";
  for (int i = 0; i < 100000; ++i) {
    std::string key = RandomBytes(&random, 32);
    if (!key.empty()) key[0] = kinds[random() % kinds.size()];
    const std::string line = Describe(key, RandomBytes(&random, 64));
    ASSERT_FALSE(line.empty());
    ASSERT_EQ(line.find_first_of(std::string("\n\0", 2)), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace cachecore::schema
