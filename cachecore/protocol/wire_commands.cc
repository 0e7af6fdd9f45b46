// The device's commands as text: a word and its arguments.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/protocol/wire.h"

namespace cachecore::wire {
namespace {

constexpr int kLargestErrno = 4095;  // The kernel's MAX_ERRNO.

// ---- Numbers, as the kernel's kstrtoull and kstrtoll read them

// 16, which no base has, for what is no digit.
int DigitValue(char c) {
  const int value = HexValue(c);
  return value < 0 ? 16 : value;
}

// Digits with an automatic base and nothing before or after them.  Returns 0 or an errno.  As in
// the kernel, overflow is noticed before junk behind the digits.
int ParseDigits(std::string_view text, uint64_t* value) {
  uint32_t base = 10;
  if (!text.empty() && text[0] == '0') {
    base = 8;
    if (text.size() > 2 && (text[1] == 'x' || text[1] == 'X') && DigitValue(text[2]) < 16) {
      base = 16;
      text.remove_prefix(2);
    }
  }
  size_t used = 0;
  bool overflow = false;
  uint64_t sum = 0;
  for (; used < text.size(); ++used) {
    const int digit = DigitValue(text[used]);
    if (digit >= static_cast<int>(base)) break;
    overflow |= __builtin_mul_overflow(sum, uint64_t{base}, &sum);
    overflow |= __builtin_add_overflow(sum, static_cast<uint64_t>(digit), &sum);
  }
  if (overflow) return ERANGE;
  if (used == 0 || used != text.size()) return EINVAL;
  *value = sum;
  return 0;
}

int ParseUnsigned(std::string_view text, uint64_t* value) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  return ParseDigits(text, value);
}

int ParseSigned(std::string_view text, int64_t* value) {
  constexpr uint64_t kMaxPositive = std::numeric_limits<int64_t>::max();
  uint64_t magnitude = 0;
  if (!text.empty() && text[0] == '-') {
    if (const int error = ParseDigits(text.substr(1), &magnitude)) return error;
    if (magnitude > kMaxPositive + 1) return ERANGE;
    *value = static_cast<int64_t>(~magnitude + 1);
    return 0;
  }
  if (const int error = ParseUnsigned(text, &magnitude)) return error;
  if (magnitude > kMaxPositive) return ERANGE;
  *value = static_cast<int64_t>(magnitude);
  return 0;
}

// The kernel's isspace(), less the newline, which divides commands.
bool IsBlank(char c) {
  return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r' || c == '\xa0';
}

Status BadArgument(std::string_view word, const char* what, int error = EINVAL) {
  return Status(error, "device command " + std::string(word) + ": " + what);
}

// Takes what stands before the next comma (all of it if there is none) off `text`.
std::string_view TakeField(std::string_view* text) {
  const size_t comma = text->find(',');
  const std::string_view field = text->substr(0, comma);
  *text = comma == std::string_view::npos ? std::string_view() : text->substr(comma + 1);
  return field;
}

// A u32 field of the command `word`, at most `max`.
Result<uint32_t> ParseU32(std::string_view word, std::string_view text,
                          uint32_t max = std::numeric_limits<uint32_t>::max()) {
  uint64_t value = 0;
  if (const int error = ParseUnsigned(text, &value)) {
    return BadArgument(word, "a number is malformed", error);
  }
  if (value > max) return BadArgument(word, "a number is too large", ERANGE);
  return static_cast<uint32_t>(value);
}

// Makes text fit for a log line or a terminal, and for one line of a packet.
std::string CleanText(std::string_view text) {
  std::string clean(text.substr(0, kMaxCauseSize));
  std::replace_if(
      clean.begin(), clean.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return clean;
}

Result<Command> ParseCaps(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t caps, ParseU32("caps", args));
  return Command(CapsCommand{caps});
}

Result<Command> ParseCredit(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t count, ParseU32("credit", args, kMaxCredits));
  if (count == 0) return BadArgument("credit", "0 is no credit");
  return Command(CreditCommand{count});
}

// docs/protocol.md "copen": an unknown ID completes nothing, a bad SIZE completes the OPEN.
Result<Command> ParseCopen(std::string_view args) {
  if (args.find(',') == std::string_view::npos) return BadArgument("copen", "no comma");
  uint64_t id = 0;
  if (const int error = ParseUnsigned(TakeField(&args), &id)) {
    return BadArgument("copen", "the id is malformed", error);
  }
  if (id > std::numeric_limits<uint32_t>::max()) {
    return BadArgument("copen", "there is no request of this id");
  }
  CopenCommand command;
  command.msg_id = {static_cast<uint32_t>(id)};
  command.error = ParseSigned(args, &command.size);
  if (command.error == 0 && command.size < -kLargestErrno) command.error = EINVAL;
  if (command.error != 0) command.size = 0;
  return Command(command);
}

// "OFF,LEN", the last arguments of `word`.
Result<ByteRange> ParseRange(const char* word, std::string_view args) {
  uint64_t offset = 0;
  uint64_t length = 0;
  int error = ParseUnsigned(TakeField(&args), &offset);
  if (error == 0) error = ParseUnsigned(args, &length);
  if (error != 0) return BadArgument(word, "a number is malformed", error);
  uint64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end) ||
      end > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return BadArgument(word, "the range ends past 2^63", ERANGE);
  }
  if (length == 0) return BadArgument(word, "the range is empty");
  return ByteRange{offset, end};
}

Result<Command> ParseFilled(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("filled", TakeField(&args)));
  ASSIGN_OR_RETURN(const ByteRange range, ParseRange("filled", args));
  return Command(FilledCommand{{object}, range});
}

Result<Command> ParseFull(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("full", args));
  return Command(FullCommand{{object}});
}

Result<Command> ParseThrough(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("through", TakeField(&args)));
  ASSIGN_OR_RETURN(const uint32_t id, ParseU32("through", TakeField(&args)));
  ASSIGN_OR_RETURN(const ByteRange range, ParseRange("through", args));
  return Command(ThroughCommand{{object}, {id}, range});
}

Result<Command> ParseCread(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("cread", TakeField(&args)));
  const bool has_error = args.find(',') != std::string_view::npos;
  ASSIGN_OR_RETURN(const uint32_t id, ParseU32("cread", TakeField(&args)));
  uint32_t error = 0;
  if (has_error) {
    ASSIGN_OR_RETURN(error, ParseU32("cread", args, kLargestErrno));
  }
  return Command(CreadCommand{{object}, {id}, static_cast<int>(error)});
}

Result<Command> ParseAttr(std::string_view args) {
  if (args.find(',') == std::string_view::npos) return BadArgument("attr", "no comma");
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("attr", TakeField(&args)));
  if (args.size() % 2 != 0) return BadArgument("attr", "an odd number of digits");
  if (args.size() / 2 > kMaxAttrSize) return BadArgument("attr", "more than 4096 bytes");
  AttrCommand command;
  command.object_id = {object};
  command.attr.reserve(args.size() / 2);
  for (size_t i = 0; i < args.size(); i += 2) {
    const int high = DigitValue(args[i]);
    const int low = DigitValue(args[i + 1]);
    if (high > 15 || low > 15) return BadArgument("attr", "not hexadecimal");
    command.attr.push_back(static_cast<char>(high * 16 + low));
  }
  return Command(std::move(command));
}

Result<Command> ParseVerity(std::string_view args) {
  if (args.find(',') == std::string_view::npos) return BadArgument("verity", "no comma");
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("verity", TakeField(&args)));
  ASSIGN_OR_RETURN(const Digest digest, ParseDigest(args));
  return Command(VerityCommand{{object}, digest});
}

Result<Command> ParseFacts(std::string_view args) {
  FactsCommand command;
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("facts", TakeField(&args)));
  command.object_id = {object};
  const int error = ParseUnsigned(TakeField(&args), &command.facts.modified_s);
  if (error != 0) return BadArgument("facts", "a number is malformed", error);
  if (command.facts.modified_s > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return BadArgument("facts", "the time is past 2^63", ERANGE);
  }
  ASSIGN_OR_RETURN(command.facts.modified_ns, ParseU32("facts", TakeField(&args), 999'999'999));
  ASSIGN_OR_RETURN(const uint32_t validator, ParseU32("facts", args, 1));
  command.facts.has_validator = validator != 0;
  return Command(command);
}

Result<Command> ParseCause(std::string_view args) {
  if (args.find(',') == std::string_view::npos) return BadArgument("cause", "no comma");
  ASSIGN_OR_RETURN(const uint32_t id, ParseU32("cause", TakeField(&args)));
  return Command(CauseCommand{{id}, CleanText(args)});
}

Result<Command> ParseCount(std::string_view args) {
  CountCommand command;
  command.name = TakeField(&args);
  const auto is_of_name = [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; };
  if (command.name.empty() || !std::all_of(command.name.begin(), command.name.end(), is_of_name)) {
    return BadArgument("count", "the name is not of small letters and _");
  }
  bool has_next = args.find(',') != std::string_view::npos;
  if (const int error = ParseUnsigned(TakeField(&args), &command.more)) {
    return BadArgument("count", "a number is malformed", error);
  }
  while (has_next) {
    has_next = args.find(',') != std::string_view::npos;
    command.labels.push_back(CleanText(TakeField(&args)));
  }
  return Command(command);
}

Result<Command> ParseClose(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("close", args));
  return Command(CloseCommand{{object}});
}

Result<Command> ParseRestore(std::string_view) { return Command(RestoreCommand{}); }

Result<Command> ParseResume(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t token, ParseU32("resume", args));
  if (token == 0) return BadArgument("resume", "the token is 0");
  return Command(ResumeCommand{token});
}

constexpr struct {
  std::string_view word;
  Result<Command> (*parse)(std::string_view args);
} kCommands[] = {
    {"attr", ParseAttr},     {"caps", ParseCaps},       {"cause", ParseCause},
    {"close", ParseClose},   {"copen", ParseCopen},     {"cread", ParseCread},
    {"credit", ParseCredit}, {"filled", ParseFilled},   {"restore", ParseRestore},
    {"resume", ParseResume}, {"verity", ParseVerity},   {"facts", ParseFacts},
    {"full", ParseFull},     {"through", ParseThrough}, {"count", ParseCount},
};

std::string Number(uint64_t value) { return std::to_string(value); }

std::string Format(const CapsCommand& c) { return "caps " + Number(c.caps); }
std::string Format(const CreditCommand& c) { return "credit " + Number(c.count); }
std::string Format(const CopenCommand& c) {
  return "copen " + Number(c.msg_id.value) + "," + std::to_string(c.error ? -c.error : c.size);
}
std::string Format(const FilledCommand& c) {
  return "filled " + Number(c.object_id.value) + "," + Number(c.range.begin) + "," +
         Number(c.range.size());
}
std::string Format(const CreadCommand& c) {
  return "cread " + Number(c.object_id.value) + "," + Number(c.msg_id.value) +
         (c.error ? "," + std::to_string(c.error) : "");
}
std::string Format(const AttrCommand& c) {
  return "attr " + Number(c.object_id.value) + "," + HexText(c.attr);
}
std::string Format(const FullCommand& c) { return "full " + Number(c.object_id.value); }
std::string Format(const ThroughCommand& c) {
  return "through " + Number(c.object_id.value) + "," + Number(c.msg_id.value) + "," +
         Number(c.range.begin) + "," + Number(c.range.size());
}
std::string Format(const CauseCommand& c) {
  return "cause " + Number(c.msg_id.value) + "," + CleanText(c.text);
}
std::string Format(const CountCommand& c) {
  std::string text = "count " + c.name + "," + Number(c.more);
  for (const std::string& label : c.labels) text += "," + CleanText(label);
  return text;
}
std::string Format(const CloseCommand& c) { return "close " + Number(c.object_id.value); }
std::string Format(const RestoreCommand&) { return "restore"; }
std::string Format(const ResumeCommand& c) { return "resume " + Number(c.token); }
std::string Format(const VerityCommand& c) {
  return "verity " + Number(c.object_id.value) + "," + DigestText(c.digest);
}
std::string Format(const FactsCommand& c) {
  return "facts " + Number(c.object_id.value) + "," + Number(c.facts.modified_s) + "," +
         Number(c.facts.modified_ns) + "," + (c.facts.has_validator ? "1" : "0");
}

}  // namespace

Result<Command> ParseCommand(std::string_view line) {
  if (line.find_first_of(std::string_view("\0\n", 2)) != std::string_view::npos) {
    return Status(EINVAL, "device command: a NUL or a newline inside");
  }
  const auto blank = std::find_if(line.begin(), line.end(), IsBlank);
  const std::string_view word = line.substr(0, static_cast<size_t>(blank - line.begin()));
  std::string_view args = line.substr(word.size());
  while (!args.empty() && IsBlank(args[0])) args.remove_prefix(1);
  for (const auto& command : kCommands) {
    if (command.word == word) return command.parse(args);
  }
  return Status(EOPNOTSUPP, "device command: unknown word");
}

std::string FormatCommand(const Command& command) {
  return std::visit([](const auto& c) { return Format(c); }, command);
}

Result<std::vector<std::string_view>> SplitPacket(std::string_view packet) {
  if (packet.empty()) return Status(EINVAL, "device packet: empty");
  if (packet.size() > kMaxCommandPacket) return Status(E2BIG, "device packet: over 65536 bytes");
  if (packet.find('\0') != std::string_view::npos) return Status(EINVAL, "device packet: a NUL");
  if (packet[0] == '\n') return Status(EINVAL, "device packet: begins with a newline");
  if (packet.back() == '\n') packet.remove_suffix(1);
  std::vector<std::string_view> lines;
  while (true) {
    const size_t newline = packet.find('\n');
    if (lines.size() == kMaxCommandsPerPacket) {
      return Status(E2BIG, "device packet: over 1024 commands");
    }
    lines.push_back(packet.substr(0, newline));
    if (newline == std::string_view::npos) return lines;
    packet.remove_prefix(newline + 1);
  }
}

}  // namespace cachecore::wire
