#include "cachecore/wire.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace cachecore::wire {
namespace {

constexpr int kMaxErrno = 4095;  // The kernel's MAX_ERRNO.

// ---- Numbers, as the kernel's kstrtoull and kstrtoll read them
// -----------------------------------

int DigitValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
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

// ---- Messages
// ------------------------------------------------------------------------------------

class Writer {
 public:
  void U32(uint32_t value) { Raw(&value, sizeof(value)); }
  void I32(int32_t value) { Raw(&value, sizeof(value)); }
  void U64(uint64_t value) { Raw(&value, sizeof(value)); }
  void Bytes(std::string_view bytes) { out_.append(bytes); }

  // Puts the header in front of what was written.
  std::string Finish(uint32_t msg_id, Opcode opcode, uint32_t object_id) {
    const std::string payload = std::exchange(out_, {});
    U32(msg_id);
    U32(static_cast<uint32_t>(opcode));
    U32(static_cast<uint32_t>(kHeaderSize + payload.size()));
    U32(object_id);
    CHECK_LE(out_.size() + payload.size(), kMaxMessageSize);
    return out_ + payload;
  }

 private:
  void Raw(const void* data, size_t size) { out_.append(static_cast<const char*>(data), size); }
  std::string out_;
};

// Reads fields in order; the first that is not there makes every later one 0 and ok() false.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  uint32_t U32() { return Raw<uint32_t>(); }
  int32_t I32() { return Raw<int32_t>(); }
  uint64_t U64() { return Raw<uint64_t>(); }
  std::string_view Bytes(size_t size) {
    if (!ok_ || size > in_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view bytes = in_.substr(0, size);
    in_.remove_prefix(size);
    return bytes;
  }
  size_t left() const { return in_.size(); }
  bool ok() const { return ok_; }

 private:
  template <typename T>
  T Raw() {
    const std::string_view bytes = Bytes(sizeof(T));
    T value = 0;
    if (ok_) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  std::string_view in_;
  bool ok_ = true;
};

struct Header {
  uint32_t msg_id, opcode, len, object_id;
};

Status Bad(const char* what) { return Status(EBADMSG, std::string("device message: ") + what); }

std::string Encode(const HelloMessage& m, uint32_t) {
  Writer w;
  w.I32(m.status);
  w.U32(m.version);
  w.U32(m.caps);
  w.U32(m.resumed);
  w.U64(m.generation.value);
  return w.Finish(0, Opcode::kHello, 0);
}

std::string Encode(const OpenMessage& m, uint32_t caps) {
  CHECK(!m.volume_key.empty() && m.volume_key.size() <= kMaxKeySize);
  CHECK(!m.cookie_key.empty() && m.cookie_key.size() <= kMaxCookieKeySize);
  Writer w;
  w.U32(static_cast<uint32_t>(m.volume_key.size() + 1));
  w.U32(static_cast<uint32_t>(m.cookie_key.size()));
  w.I32(m.fd);
  w.U32(0);  // flags
  w.Bytes(m.volume_key);
  w.Bytes(std::string_view("\0", 1));
  w.Bytes(m.cookie_key);
  if (caps & kCapAttr) {
    CHECK_LE(m.attr.size(), kMaxAttrSize);
    w.U32(static_cast<uint32_t>(m.attr.size()));
    w.Bytes(m.attr);
  }
  return w.Finish(m.msg_id.value, Opcode::kOpen, m.object_id.value);
}

std::string Encode(const CloseMessage& m, uint32_t) {
  return Writer().Finish(m.msg_id.value, Opcode::kClose, m.object_id.value);
}

std::string Encode(const ReadMessage& m, uint32_t) {
  Writer w;
  w.U64(m.range.begin);
  w.U64(m.range.size());
  return w.Finish(m.msg_id.value, Opcode::kRead, m.object_id.value);
}

std::string Encode(const ReplyMessage& m, uint32_t) {
  CHECK_LE(m.results.size(), kMaxCommandsPerPacket);
  Writer w;
  for (const int32_t result : m.results) w.I32(result);
  return w.Finish(m.packet, Opcode::kReply, 0);
}

Result<Message> DecodeHello(Reader in) {
  HelloMessage m;
  m.status = in.I32();
  m.version = in.U32();
  m.caps = in.U32();
  m.resumed = in.U32();
  m.generation = {in.U64()};
  if (!in.ok() || in.left() != 0) return Bad("HELLO of a wrong length");
  if (m.status > 0 || m.status < -kMaxErrno) return Bad("HELLO status is no errno");
  return Message(m);
}

Result<Message> DecodeOpen(const Header& header, Reader in, uint32_t caps) {
  OpenMessage m;
  m.msg_id = {header.msg_id};
  m.object_id = {header.object_id};
  const uint32_t volume_size = in.U32();
  const uint32_t cookie_size = in.U32();
  m.fd = in.I32();
  const uint32_t flags = in.U32();
  if (!in.ok()) return Bad("OPEN is too short");
  if (flags != 0) return Bad("OPEN has unknown flags");
  if (volume_size < 2 || volume_size > kMaxKeySize + 1) return Bad("OPEN volume key size");
  if (cookie_size < 1 || cookie_size > kMaxCookieKeySize) return Bad("OPEN cookie key size");
  const std::string_view volume = in.Bytes(volume_size);
  m.cookie_key = in.Bytes(cookie_size);
  if (caps & kCapAttr) {
    const uint32_t attr_size = in.U32();
    if (attr_size > kMaxAttrSize) return Bad("OPEN attr size");
    m.attr = in.Bytes(attr_size);
  }
  if (!in.ok() || in.left() != 0) return Bad("OPEN of a wrong length");
  if (volume.find('\0') != volume.size() - 1) return Bad("OPEN volume key is not one C string");
  m.volume_key = volume.substr(0, volume.size() - 1);
  return Message(std::move(m));
}

Result<Message> DecodeRead(const Header& header, Reader in) {
  const uint64_t offset = in.U64();
  const uint64_t length = in.U64();
  if (!in.ok() || in.left() != 0) return Bad("READ of a wrong length");
  uint64_t end = 0;
  if (length == 0 || __builtin_add_overflow(offset, length, &end) ||
      end > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Bad("READ range is empty or past 2^63");
  }
  return Message(ReadMessage{{header.msg_id}, {header.object_id}, {offset, end}});
}

Result<Message> DecodeReply(const Header& header, Reader in) {
  ReplyMessage m;
  m.packet = header.msg_id;
  if (in.left() % sizeof(int32_t) != 0 || in.left() / sizeof(int32_t) > kMaxCommandsPerPacket) {
    return Bad("REPLY of a wrong length");
  }
  while (in.left() > 0) {
    m.results.push_back(in.I32());
    if (m.results.back() > 0 || m.results.back() < -kMaxErrno) return Bad("REPLY is no errno");
  }
  return Message(std::move(m));
}

// ---- Commands
// ------------------------------------------------------------------------------------

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
  if (command.error == 0 && command.size < -kMaxErrno) command.error = EINVAL;
  if (command.error != 0) command.size = 0;
  return Command(command);
}

Result<Command> ParseFilled(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("filled", TakeField(&args)));
  uint64_t offset = 0;
  uint64_t length = 0;
  int error = ParseUnsigned(TakeField(&args), &offset);
  if (error == 0) error = ParseUnsigned(args, &length);
  if (error != 0) return BadArgument("filled", "a number is malformed", error);
  uint64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end) ||
      end > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return BadArgument("filled", "the range ends past 2^63", ERANGE);
  }
  if (length == 0) return BadArgument("filled", "the range is empty");
  return Command(FilledCommand{{object}, {offset, end}});
}

Result<Command> ParseCread(std::string_view args) {
  ASSIGN_OR_RETURN(const uint32_t object, ParseU32("cread", TakeField(&args)));
  const bool has_error = args.find(',') != std::string_view::npos;
  ASSIGN_OR_RETURN(const uint32_t id, ParseU32("cread", TakeField(&args)));
  uint32_t error = 0;
  if (has_error) {
    ASSIGN_OR_RETURN(error, ParseU32("cread", args, kMaxErrno));
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

Result<Command> ParseCause(std::string_view args) {
  if (args.find(',') == std::string_view::npos) return BadArgument("cause", "no comma");
  ASSIGN_OR_RETURN(const uint32_t id, ParseU32("cause", TakeField(&args)));
  return Command(CauseCommand{{id}, CleanText(args)});
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
    {"attr", ParseAttr},     {"caps", ParseCaps},     {"cause", ParseCause},
    {"close", ParseClose},   {"copen", ParseCopen},   {"cread", ParseCread},
    {"credit", ParseCredit}, {"filled", ParseFilled}, {"restore", ParseRestore},
    {"resume", ParseResume}, {"verity", ParseVerity},
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
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string line = "attr " + Number(c.object_id.value) + ",";
  for (const char byte : c.attr) {
    const auto value = static_cast<unsigned char>(byte);
    line += {kDigits[value >> 4], kDigits[value & 15]};
  }
  return line;
}
std::string Format(const CauseCommand& c) {
  return "cause " + Number(c.msg_id.value) + "," + CleanText(c.text);
}
std::string Format(const CloseCommand& c) { return "close " + Number(c.object_id.value); }
std::string Format(const RestoreCommand&) { return "restore"; }
std::string Format(const ResumeCommand& c) { return "resume " + Number(c.token); }
std::string Format(const VerityCommand& c) {
  return "verity " + Number(c.object_id.value) + "," + DigestText(c.digest);
}

}  // namespace

std::string EncodeMessage(const Message& message, uint32_t caps) {
  return std::visit([caps](const auto& m) { return Encode(m, caps); }, message);
}

Result<Message> DecodeMessage(std::string_view packet, uint32_t caps) {
  if (packet.size() > kMaxMessageSize) return Bad("longer than the protocol allows");
  Reader in(packet);
  const Header header{in.U32(), in.U32(), in.U32(), in.U32()};
  if (!in.ok()) return Bad("shorter than its header");
  if (header.len != packet.size()) return Bad("its length is not the packet's");
  switch (static_cast<Opcode>(header.opcode)) {
    case Opcode::kOpen:
      return DecodeOpen(header, in, caps);
    case Opcode::kClose:
      if (in.left() != 0) return Bad("CLOSE of a wrong length");
      return Message(CloseMessage{{header.msg_id}, {header.object_id}});
    case Opcode::kRead:
      return DecodeRead(header, in);
    case Opcode::kHello:
      return DecodeHello(in);
    case Opcode::kReply:
      return DecodeReply(header, in);
  }
  return Bad("unknown opcode");
}

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
