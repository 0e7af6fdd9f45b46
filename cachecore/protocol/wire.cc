#include "cachecore/protocol/wire.h"

#include <glog/logging.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace cachecore::wire {
namespace {

constexpr int kMaxErrno = 4095;  // The kernel's MAX_ERRNO.

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

constexpr uint32_t kOpenCheck = 1;
constexpr uint32_t kReadAhead = 1;

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
  const bool is_check = m.is_check && (caps & kCapFacts) != 0;
  w.U32(is_check ? kOpenCheck : 0);
  w.Bytes(m.volume_key);
  w.Bytes(std::string_view("\0", 1));
  w.Bytes(m.cookie_key);
  if (caps & kCapAttr) {
    // A fetcher that can't check what is known must learn it again.
    const std::string& attr = m.is_check && !is_check ? std::string() : m.attr;
    CHECK_LE(attr.size(), kMaxAttrSize);
    w.U32(static_cast<uint32_t>(attr.size()));
    w.Bytes(attr);
  }
  return w.Finish(m.msg_id.value, Opcode::kOpen, m.object_id.value);
}

std::string Encode(const CloseMessage& m, uint32_t) {
  return Writer().Finish(m.msg_id.value, Opcode::kClose, m.object_id.value);
}

std::string Encode(const ReadMessage& m, uint32_t caps) {
  Writer w;
  w.U64(m.range.begin);
  w.U64(m.range.size());
  if (caps & kCapAhead) w.U32(m.is_ahead ? kReadAhead : 0);
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
  if (flags != 0 && (flags != kOpenCheck || (caps & kCapFacts) == 0)) {
    return Bad("OPEN has unknown flags");
  }
  m.is_check = flags != 0;
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

Result<Message> DecodeRead(const Header& header, Reader in, uint32_t caps) {
  const uint64_t offset = in.U64();
  const uint64_t length = in.U64();
  const uint32_t flags = (caps & kCapAhead) != 0 ? in.U32() : 0;
  if (!in.ok() || in.left() != 0) return Bad("READ of a wrong length");
  uint64_t end = 0;
  if (length == 0 || __builtin_add_overflow(offset, length, &end) ||
      end > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Bad("READ range is empty or past 2^63");
  }
  if (flags != 0 && flags != kReadAhead) return Bad("READ has unknown flags");
  return Message(ReadMessage{{header.msg_id}, {header.object_id}, {offset, end}, flags != 0});
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
      return DecodeRead(header, in, caps);
    case Opcode::kHello:
      return DecodeHello(in);
    case Opcode::kReply:
      return DecodeReply(header, in);
  }
  return Bad("unknown opcode");
}

}  // namespace cachecore::wire
