#include "cachecore/protocol/wire.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <string>

#include "tests/cachecore/engine/seed.h"

namespace cachecore::wire {
namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); ++i) {
    if (hex[i] == ' ') continue;
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
    ++i;
  }
  return bytes;
}

std::string ToHex(std::string_view bytes) {
  std::string hex;
  char digits[3];
  for (const char byte : bytes) {
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned char>(byte));
    hex += digits;
  }
  return hex;
}

// ---- Random messages and commands
// ----------------------------------------------------------------

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t limit) {
    return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random_);
  }
  uint32_t U32() { return static_cast<uint32_t>(random_()); }
  std::string Bytes(size_t size, int low = 0, int high = 255) {
    std::string bytes(size, '\0');
    std::uniform_int_distribution<int> byte(low, high);
    for (char& c : bytes) c = static_cast<char>(byte(random_));
    return bytes;
  }
  ByteRange Range() {
    const uint64_t begin = Below(INT64_MAX);
    return {begin, begin + 1 + Below(static_cast<uint64_t>(INT64_MAX) - begin)};
  }
  int32_t Result() { return -static_cast<int32_t>(Below(4096)); }

  Message NextMessage(uint32_t caps) {
    switch (Below(5)) {
      case 0:
        return HelloMessage{Result(), U32(), U32(), {Below(UINT64_MAX)}, U32()};
      case 1: {
        OpenMessage open{
            {U32()}, {U32()}, Bytes(1 + Below(kMaxKeySize), 1), Bytes(1 + Below(kMaxCookieKeySize)),
            -1,      ""};
        if (caps & kCapAttr) open.attr = Bytes(Below(kMaxAttrSize + 1));
        return open;
      }
      case 2:
        return CloseMessage{{U32()}, {U32()}};
      case 3:
        return ReadMessage{{U32()}, {U32()}, Range(), U32() % 2 == 0};
      default: {
        ReplyMessage reply{U32(), {}};
        for (uint64_t i = Below(kMaxCommandsPerPacket + 1); i > 0; --i) {
          reply.results.push_back(Result());
        }
        return reply;
      }
    }
  }

  Command NextCommand() {
    switch (Below(13)) {
      case 0:
        return CapsCommand{U32()};
      case 1:
        return CreditCommand{static_cast<uint32_t>(1 + Below(kMaxCredits))};
      case 2:
        return CopenCommand{{U32()}, static_cast<int64_t>(Below(INT64_MAX)), 0};
      case 3:
        return FilledCommand{{U32()}, Range()};
      case 4:
        return CreadCommand{{U32()}, {U32()}, static_cast<int>(Below(4096))};
      case 5:
        return AttrCommand{{U32()}, Bytes(Below(kMaxAttrSize + 1))};
      case 6:
        return CauseCommand{{U32()}, Bytes(Below(kMaxCauseSize + 1), ' ', '~')};
      case 7:
        return CloseCommand{{U32()}};
      case 8:
        return ResumeCommand{static_cast<uint32_t>(1 + Below(UINT32_MAX))};
      case 9:
        return FullCommand{{U32()}};
      case 10:
        return ThroughCommand{{U32()}, {U32()}, Range()};
      case 11:
        return CountCommand{
            Bytes(1 + Below(20), 'a', 'z'), U32(), {Bytes(1 + Below(40), '-', '~')}};
      default:
        return RestoreCommand{};
    }
  }

 private:
  std::mt19937_64 random_;
};

// ---- Messages
// ------------------------------------------------------------------------------------

TEST(WireMessageTest, LayoutsAreTheKernelsToTheByte) {
  const ReadMessage read{{7}, {3}, ByteRange::At(0x10000, 0x20000)};
  EXPECT_EQ(ToHex(EncodeMessage(read, 0)),
            "07000000"
            "02000000"
            "20000000"
            "03000000"
            "0000010000000000"
            "0000020000000000");
  EXPECT_EQ(EncodeMessage(CloseMessage{{1}, {2}}, 0),
            FromHex("01000000 01000000 10000000 02000000"));
  const OpenMessage open{{0}, {1}, "v", "img", 5, "ignored without the capability"};
  EXPECT_EQ(EncodeMessage(open, 0), FromHex("00000000 00000000 25000000 01000000"
                                            "02000000 03000000 05000000 00000000"
                                            "7600 696d67"));
}

TEST(WireMessageTest, HelloAndReplyAreAsDocumented) {
  EXPECT_EQ(EncodeMessage(HelloMessage{-EBUSY, 1, 3, {9}}, 0),
            FromHex("00000000 00000080 28000000 00000000"
                    "f0ffffff 01000000 03000000 00000000 0900000000000000"));
  EXPECT_EQ(EncodeMessage(HelloMessage{0, 1, 3, {10}, 0xcafe}, 0),
            FromHex("00000000 00000080 28000000 00000000"
                    "00000000 01000000 03000000 feca0000 0a00000000000000"));
  EXPECT_EQ(EncodeMessage(ReplyMessage{4, {0, -EINVAL}}, 0),
            FromHex("04000000 01000080 18000000 00000000 00000000 eaffffff"));
}

TEST(WireMessageTest, TheWorkedExampleOfTheProtocolPageIsRight) {
  const auto expect = [](const Message& message, std::string_view hex) {
    EXPECT_EQ(ToHex(EncodeMessage(message, kCapAttr | kCapBatch)), ToHex(FromHex(hex)));
  };
  expect(HelloMessage{0, 1, 3, {9}},
         "00000000 00000080 28000000 00000000 "
         "00000000 01000000 03000000 00000000 09000000 00000000");
  expect(ReplyMessage{0, {0}}, "00000000 01000080 14000000 00000000 00000000");
  expect(ReplyMessage{1, {0, 0}}, "01000000 01000080 18000000 00000000 00000000 00000000");
  expect(OpenMessage{{0}, {1}, "images", "disk.erofs", -1, ""},
         "00000000 00000000 35000000 01000000 07000000 0a000000 ffffffff 00000000 "
         "696d6167657300 6469736b2e65726f6673 00000000");
  EXPECT_EQ(FormatCommand(AttrCommand{{1}, "{}"}), "attr 1,7b7d");
  expect(ReadMessage{{2}, {1}, ByteRange::At(65536, 65536)},
         "02000000 02000000 20000000 01000000 0000010000000000 0000010000000000");
  expect(CloseMessage{{3}, {1}}, "03000000 01000000 10000000 01000000");
}

TEST(WireMessageTest, ReadAheadIsMarkedWithItsCapabilityOnly) {
  const ReadMessage read{{2}, {1}, ByteRange::At(0, 4096), true};
  const std::string bytes = EncodeMessage(read, kCapAhead);
  EXPECT_EQ(bytes.substr(32), FromHex("01000000"));
  EXPECT_TRUE(std::get<ReadMessage>(*DecodeMessage(bytes, kCapAhead)).is_ahead);
  EXPECT_EQ(DecodeMessage(bytes, 0).status().error(), EBADMSG);
  EXPECT_EQ(EncodeMessage(read, 0).size(), 32u);
  EXPECT_EQ(DecodeMessage(EncodeMessage(read, 0), kCapAhead).status().error(), EBADMSG);
  std::string unknown = bytes;
  unknown[32] = 2;
  EXPECT_EQ(DecodeMessage(unknown, kCapAhead).status().error(), EBADMSG);
}

TEST(WireMessageTest, AttrFollowsTheKeysWithItsCapabilityOnly) {
  const OpenMessage open{{0}, {1}, "v", "c", -1, "ab"};
  const std::string bytes = EncodeMessage(open, kCapAttr);
  EXPECT_EQ(bytes.substr(32), FromHex("7600 63 02000000 6162"));
  EXPECT_EQ(std::get<OpenMessage>(*DecodeMessage(bytes, kCapAttr)).attr, "ab");
  EXPECT_EQ(DecodeMessage(bytes, 0).status().error(), EBADMSG);
}

TEST(WireMessageTest, EveryMessageSurvivesARoundTrip) {
  Generator random(TestSeed());
  for (int i = 0; i < 20000; ++i) {
    const uint32_t caps = random.U32() & kAllCaps;
    const std::string bytes = EncodeMessage(random.NextMessage(caps), caps);
    ASSERT_LE(bytes.size(), kMaxMessageSize);
    auto decoded = DecodeMessage(bytes, caps);
    ASSERT_TRUE(decoded.ok()) << ToHex(bytes);
    ASSERT_EQ(EncodeMessage(*decoded, caps), bytes) << ToHex(bytes);
  }
}

TEST(WireMessageTest, EveryTruncationAndExtensionIsAnError) {
  Generator random(TestSeed());
  for (int i = 0; i < 300; ++i) {
    const std::string bytes = EncodeMessage(random.NextMessage(kCapAttr), kCapAttr);
    for (size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_EQ(DecodeMessage(bytes.substr(0, size), kCapAttr).status().error(), EBADMSG)
          << ToHex(bytes) << " cut to " << size;
    }
    ASSERT_EQ(DecodeMessage(bytes + "x", kCapAttr).status().error(), EBADMSG) << ToHex(bytes);
  }
}

TEST(WireMessageTest, AMillionMutationsDecodeToAMessageOrAnError) {
  Generator random(TestSeed());
  std::string bytes;
  uint64_t accepted = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    if (i % 16 == 0) bytes = EncodeMessage(random.NextMessage(kCapAttr), kCapAttr);
    std::string mutant = bytes.substr(0, 64);  // Where all the structure is.
    if (bytes.size() > 64 && i % 4 == 0) mutant = bytes;
    mutant[random.Below(std::min<size_t>(mutant.size(), 48))] = static_cast<char>(random.U32());
    if (i % 3 == 0) {
      const auto size = static_cast<uint32_t>(mutant.size());
      std::memcpy(mutant.data() + 8, &size, sizeof(size));
    }
    auto decoded = DecodeMessage(mutant, kCapAttr);
    if (!decoded.ok()) {
      ASSERT_EQ(decoded.status().error(), EBADMSG);
      continue;
    }
    ++accepted;
    // What was accepted means what it says: encoding it gives a message of the same length.
    ASSERT_EQ(EncodeMessage(*decoded, kCapAttr).size(), mutant.size()) << ToHex(mutant);
  }
  EXPECT_GT(accepted, 10'000u);  // Otherwise the mutants were all junk and this shows nothing.
}

TEST(WireMessageTest, ImpossibleFieldsAreRefused) {
  const std::string header = FromHex("00000000 02000000 20000000 01000000");
  const auto decode = [&](const char* payload) {
    return DecodeMessage(header + FromHex(payload), 0).status().error();
  };
  EXPECT_EQ(decode("00000000 00000000 00000000 00000000"), EBADMSG) << "empty READ";
  EXPECT_EQ(decode("ffffffff ffffff7f 01000000 00000000"), EBADMSG) << "ends past 2^63 - 1";
  EXPECT_EQ(decode("feffffff ffffff7f 01000000 00000000"), 0);
  EXPECT_EQ(decode("ffffffff ffffffff ffffffff ffffffff"), EBADMSG) << "wraps";
  EXPECT_EQ(DecodeMessage(FromHex("00000000 03000000 10000000 00000000"), 0).status().error(),
            EBADMSG)
      << "unknown opcode";
  EXPECT_EQ(
      DecodeMessage(FromHex("00000000 01000080 14000000 00000000 01000000"), 0).status().error(),
      EBADMSG)
      << "positive result";
  // Volume key with a NUL inside; keys that claim more than there is.
  EXPECT_EQ(DecodeMessage(FromHex("00000000 00000000 24000000 01000000"
                                  "03000000 01000000 00000000 00000000 000000 63"),
                          0)
                .status()
                .error(),
            EBADMSG);
  EXPECT_EQ(DecodeMessage(FromHex("00000000 00000000 23000000 01000000"
                                  "02000000 ffffffff 00000000 00000000 7600 63"),
                          0)
                .status()
                .error(),
            EBADMSG);
}

// ---- Commands
// ------------------------------------------------------------------------------------

int ErrorOf(std::string_view line) { return ParseCommand(line).status().error(); }

TEST(WireCommandTest, EveryCommandSurvivesARoundTrip) {
  Generator random(TestSeed());
  for (int i = 0; i < 20000; ++i) {
    const std::string line = FormatCommand(random.NextCommand());
    auto parsed = ParseCommand(line);
    ASSERT_TRUE(parsed.ok()) << line;
    ASSERT_EQ(FormatCommand(*parsed), line);
  }
}

TEST(WireCommandTest, AMillionMutationsParseOrFailWithTheKernelsErrnos) {
  Generator random(TestSeed());
  std::string line;
  for (int i = 0; i < 1'000'000; ++i) {
    if (i % 16 == 0) line = FormatCommand(random.NextCommand()).substr(0, 40);
    std::string mutant = line;
    const size_t place = random.Below(mutant.size());
    switch (random.Below(3)) {
      case 0:
        mutant[place] = static_cast<char>(random.U32());
        break;
      case 1:
        mutant.erase(place, 1);
        break;
      default:
        mutant.insert(place, 1, "0123456789,+-x \n\0"[random.Below(17)]);
    }
    auto parsed = ParseCommand(mutant);
    if (parsed.ok()) {
      ASSERT_TRUE(ParseCommand(FormatCommand(*parsed)).ok()) << ToHex(mutant);
    } else {
      const int error = parsed.status().error();
      ASSERT_TRUE(error == EINVAL || error == ERANGE || error == EOPNOTSUPP) << ToHex(mutant);
    }
  }
}

TEST(WireCommandTest, WordsAreExact) {
  EXPECT_EQ(ErrorOf(""), EOPNOTSUPP);
  EXPECT_EQ(ErrorOf(" restore"), EOPNOTSUPP);
  EXPECT_EQ(ErrorOf("Restore"), EOPNOTSUPP);
  EXPECT_EQ(ErrorOf("restored"), EOPNOTSUPP);
  EXPECT_EQ(ErrorOf("copen5,1"), EOPNOTSUPP);
  EXPECT_EQ(ErrorOf("restore\0"sv), EINVAL);
  EXPECT_EQ(ErrorOf("restore\ncopen 1,2"), EINVAL);
  EXPECT_EQ(ErrorOf("restore anything"), 0);
  EXPECT_EQ(ErrorOf("copen \t 5,1"), 0);
}

struct CopenCase {
  const char* args;
  int error;  // Of the command itself.
  uint32_t id = 0;
  int64_t size = 0;
  int open_error = 0;  // Of CopenCommand.
};

TEST(WireCommandTest, CopenFollowsTheKernelsDecisionList) {
  const CopenCase kCases[] = {
      {"", EINVAL},
      {" ", EINVAL},
      {"5", EINVAL},
      {",", EINVAL},
      {",5", EINVAL},
      {"-1,5", EINVAL},
      {"5 ,1", EINVAL},
      {"++5,1", EINVAL},
      {"0x,1", EINVAL},
      {"08,1", EINVAL},
      {"18446744073709551616,1", ERANGE},
      {"99999999999999999999x,1", ERANGE},
      {"4294967296,1", EINVAL},  // A number, but no request of that id can be.
      {"5,0", 0, 5, 0, 0},
      {"+5,1", 0, 5, 1, 0},
      {"0x10,0x20", 0, 16, 32, 0},
      {"010,010", 0, 8, 8, 0},
      {"5,+7", 0, 5, 7, 0},
      {"5,-2", 0, 5, -2, 0},
      {"5,-0x10", 0, 5, -16, 0},
      {"5,-4095", 0, 5, -4095, 0},
      {"5,-4096", 0, 5, 0, EINVAL},
      {"5,-9223372036854775808", 0, 5, 0, EINVAL},
      {"5,-9223372036854775809", 0, 5, 0, ERANGE},
      {"5,9223372036854775807", 0, 5, INT64_MAX, 0},
      {"5,9223372036854775808", 0, 5, 0, ERANGE},
      {"5,", 0, 5, 0, EINVAL},
      {"5,-", 0, 5, 0, EINVAL},
      {"5,-+1", 0, 5, 0, EINVAL},
      {"5, 1", 0, 5, 0, EINVAL},
      {"5,1 ", 0, 5, 0, EINVAL},
      {"5,1,2", 0, 5, 0, EINVAL},
  };
  for (const CopenCase& c : kCases) {
    SCOPED_TRACE(c.args);
    auto parsed = ParseCommand(std::string("copen ") + c.args);
    EXPECT_EQ(parsed.status().error(), c.error);
    if (!parsed.ok()) continue;
    const auto& copen = std::get<CopenCommand>(*parsed);
    EXPECT_EQ(copen.msg_id.value, c.id);
    EXPECT_EQ(copen.size, c.size);
    EXPECT_EQ(copen.error, c.open_error);
  }
}

TEST(WireCommandTest, OurOwnCommandsRefuseWhatTheyCannotMean) {
  EXPECT_EQ(ErrorOf("count requests,1,host,206"), 0);
  EXPECT_EQ(ErrorOf("count ,1"), EINVAL);
  EXPECT_EQ(ErrorOf("count a b,1"), EINVAL);
  EXPECT_EQ(ErrorOf("count \x15 a,1"), EINVAL);
  EXPECT_EQ(ErrorOf("count requests"), EINVAL);
  EXPECT_EQ(ErrorOf("credit 0"), EINVAL);
  EXPECT_EQ(ErrorOf("credit 4097"), ERANGE);
  EXPECT_EQ(ErrorOf("caps"), EINVAL);
  EXPECT_EQ(ErrorOf("filled 1,0,0"), EINVAL);
  EXPECT_EQ(ErrorOf("filled 1,0"), EINVAL);
  EXPECT_EQ(ErrorOf("filled 1,9223372036854775807,1"), ERANGE);
  EXPECT_EQ(ErrorOf("filled 1,18446744073709551615,2"), ERANGE);
  EXPECT_EQ(ErrorOf("cread 1,2,"), EINVAL);
  EXPECT_EQ(ErrorOf("cread 1,2,4096"), ERANGE);
  EXPECT_EQ(ErrorOf("cread 1,2,5,6"), EINVAL);
  EXPECT_EQ(ErrorOf("attr 1"), EINVAL);
  EXPECT_EQ(ErrorOf("attr 1,"), 0);
  EXPECT_EQ(ErrorOf("attr 1,abc"), EINVAL);
  EXPECT_EQ(ErrorOf("attr 1,zz"), EINVAL);
  EXPECT_EQ(ErrorOf("attr 1," + std::string(2 * kMaxAttrSize, 'a')), 0);
  EXPECT_EQ(ErrorOf("attr 1," + std::string(2 * kMaxAttrSize + 2, 'a')), EINVAL);
  EXPECT_EQ(ErrorOf("close"), EINVAL);
  EXPECT_EQ(ErrorOf("cause 1"), EINVAL);
}

TEST(WireCommandTest, CausesAreMadeFitForATerminal) {
  auto parsed = ParseCommand("cause 3,red \x1b[31m\ttext\x7f");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(std::get<CauseCommand>(*parsed).text, "red  [31m text ");
  const std::string line =
      FormatCommand(CauseCommand{{3}, "two\nlines\0"s + std::string(5000, 'x')});
  EXPECT_EQ(line.find_first_of("\n\0"s), std::string::npos);
  EXPECT_EQ(line.size(), std::strlen("cause 3,") + kMaxCauseSize);
}

// ---- Packets
// -------------------------------------------------------------------------------------

TEST(WirePacketTest, LinesAreDividedByNewlines) {
  using Lines = std::vector<std::string_view>;
  EXPECT_EQ(*SplitPacket("restore"), Lines({"restore"}));
  EXPECT_EQ(*SplitPacket("restore\n"), Lines({"restore"}));
  EXPECT_EQ(*SplitPacket("a\n\nb"), Lines({"a", "", "b"}));
  EXPECT_EQ(*SplitPacket("a\n\n"), Lines({"a", ""}));
}

TEST(WirePacketTest, MalformedPacketsAreRefusedWhole) {
  EXPECT_EQ(SplitPacket("").status().error(), EINVAL);
  EXPECT_EQ(SplitPacket("\nrestore").status().error(), EINVAL);
  EXPECT_EQ(SplitPacket("a\0b"sv).status().error(), EINVAL);
  EXPECT_EQ(SplitPacket(std::string(kMaxCommandPacket + 1, 'a')).status().error(), E2BIG);
  std::string most;
  for (size_t i = 0; i < kMaxCommandsPerPacket; ++i) most += "a\n";
  EXPECT_EQ(SplitPacket(most)->size(), kMaxCommandsPerPacket);
  EXPECT_EQ(SplitPacket(most + "a").status().error(), E2BIG);
}

TEST(WireCommandTest, FactsCarryTheTimeAndWhetherThereIsAValidator) {
  const auto parsed = ParseCommand("facts 7,1000000000,999999999,0");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const auto& facts = std::get<FactsCommand>(*parsed);
  EXPECT_EQ(facts.object_id.value, 7u);
  EXPECT_EQ(facts.facts, (ObjectFacts{1'000'000'000, 999'999'999, false}));
  EXPECT_EQ(FormatCommand(*parsed), "facts 7,1000000000,999999999,0");
  for (const char* bad : {"facts 7", "facts 7,1,2", "facts 7,1,1000000000,0", "facts 7,1,0,2",
                          "facts 7,18446744073709551615,0,1", "facts 7,-1,0,1"}) {
    EXPECT_FALSE(ParseCommand(bad).ok()) << bad;
  }
}

TEST(WireCommandTest, ThroughNamesAReadAndItsRange) {
  const auto parsed = ParseCommand("through 7,8,4096,65536");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const auto& through = std::get<ThroughCommand>(*parsed);
  EXPECT_EQ(through.object_id.value, 7u);
  EXPECT_EQ(through.msg_id.value, 8u);
  EXPECT_EQ(through.range, (ByteRange{4096, 4096 + 65536}));
  EXPECT_EQ(FormatCommand(*parsed), "through 7,8,4096,65536");
  for (const char* bad : {"through", "through 7", "through 7,8", "through 7,8,4096",
                          "through 7,8,4096,0", "through 7,8,-1,1", "through 7,8,1,2,3"}) {
    EXPECT_EQ(ErrorOf(bad), EINVAL) << bad;
  }
  EXPECT_EQ(ErrorOf("through 7,8,18446744073709551615,2"), ERANGE);
  EXPECT_EQ(FormatCommand(*ParseCommand("full 7")), "full 7");
  EXPECT_EQ(ErrorOf("full"), EINVAL);
  EXPECT_EQ(ErrorOf("full 7,8"), EINVAL);
}

TEST(WireMessageTest, AnOpenThatChecksComesWithoutAttrWhereThatIsNotKnown) {
  const OpenMessage open{{1}, {2}, "v", "c", -1, "known", true};
  const uint32_t all = kCapAttr | kCapFacts;
  const auto checked = DecodeMessage(EncodeMessage(open, all), all);
  ASSERT_TRUE(checked.ok()) << checked.status().message();
  EXPECT_TRUE(std::get<OpenMessage>(*checked).is_check);
  EXPECT_EQ(std::get<OpenMessage>(*checked).attr, "known");
  const auto plain = DecodeMessage(EncodeMessage(open, kCapAttr), kCapAttr);
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  EXPECT_FALSE(std::get<OpenMessage>(*plain).is_check);
  EXPECT_EQ(std::get<OpenMessage>(*plain).attr, "");
}

}  // namespace
}  // namespace cachecore::wire
