// The device protocol as bytes: the messages between holdfastd and a fetcher.  Pure, no I/O.
//
// Model    a SOCK_SEQPACKET connection.  Daemon to fetcher: one message a packet, each the kernel's
//          `struct cachefiles_msg` (16-byte header, host byte order), with opcodes from 0x80000000
//          up for what the kernel has no message for.  Fetcher to daemon: packets of text, one or
//          more commands divided by newlines; each packet is answered by one REPLY message with a
//          result per command, in order.
// Errors   a packet that does not decode gives EBADMSG (messages) or EINVAL / EOPNOTSUPP (commands,
//          as the kernel's parser has it); never a crash, whatever the bytes.
// See      docs/protocol.md (byte layouts, grammar, examples); Linux
//          include/uapi/linux/cachefiles.h.

#ifndef CACHECORE_PROTOCOL_WIRE_H_
#define CACHECORE_PROTOCOL_WIRE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/status.h"
#include "cachecore/values/ids.h"
#include "cachecore/values/limits.h"
#include "cachecore/values/object_facts.h"
#include "cachecore/verity/verity_tree.h"

namespace cachecore::wire {

enum class Opcode : uint32_t {
  kOpen = 0,
  kClose = 1,
  kRead = 2,
  kHello = 0x80000000,  // First message of a connection: whether the fetcher may attach.
  kReply = 0x80000001,  // Results of one packet of commands.
};

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kHeaderSize = 16;
inline constexpr size_t kMaxAttrSize = 4096;        // See OpenMessage::attr.
inline constexpr size_t kMaxMessageSize = 8192;     // Daemon to fetcher.
inline constexpr size_t kMaxCommandPacket = 65536;  // Fetcher to daemon.
inline constexpr size_t kMaxCommandsPerPacket = 1024;
inline constexpr uint32_t kMaxCredits = 4096;
inline constexpr size_t kMaxCauseSize = 1024;         // Longer texts are cut.
inline constexpr uint64_t kMaxThroughSize = 4 << 20;  // Bytes of one `through`.

// Capability bits: offered in HELLO, chosen by the `caps` command; all off until then, and then the
// messages are the kernel's to the byte.
inline constexpr uint32_t kCapAttr = 1u << 0;     // OPEN carries the object's attr; `attr` command.
inline constexpr uint32_t kCapBatch = 1u << 1;    // More than one command a packet.
inline constexpr uint32_t kCapVerity = 1u << 2;   // `verity` command.
inline constexpr uint32_t kCapFacts = 1u << 3;    // `facts` command; OPENs that check attr.
inline constexpr uint32_t kCapThrough = 1u << 4;  // `full` and `through` commands.
inline constexpr uint32_t kCapAhead = 1u << 5;    // READ says whether it is read-ahead.
inline constexpr uint32_t kCapCount = 1u << 6;    // `count` command.
inline constexpr uint32_t kAllCaps =
    kCapAttr | kCapBatch | kCapVerity | kCapFacts | kCapThrough | kCapAhead | kCapCount;

struct HelloMessage {
  int32_t status = 0;  // 0, or -EBUSY (a fetcher is attached), -EPERM (wrong uid).
  uint32_t version = kProtocolVersion;
  uint32_t caps = kAllCaps;
  Generation generation;
  uint32_t resumed = 0;  // The token of the `resume` that this answers; 0 at a new connection.
};

// The object's data fd travels with this message by SCM_RIGHTS (the kernel puts its number in `fd`;
// here the field is what the receiver's library fills in).
struct OpenMessage {
  MsgId msg_id;
  ObjectId object_id;
  std::string volume_key;  // Text; on the wire followed by a NUL that its size counts.
  std::string cookie_key;  // Binary; no NUL.
  int32_t fd = -1;
  // Only with kCapAttr: what the fetcher last stored with `attr`, "" if nothing.  Opaque to the
  // daemon.
  std::string attr;
  // Only with kCapFacts: find out whether what attr says still holds, and send none if it does.
  bool is_check = false;
};

struct ReadMessage {
  MsgId msg_id;
  ObjectId object_id;
  ByteRange range;
  bool is_ahead = false;  // Only with kCapAhead: no read waits for it when it is sent.
};

struct CloseMessage {
  MsgId msg_id;
  ObjectId object_id;
};

struct ReplyMessage {
  uint32_t packet = 0;           // Which packet of this connection, counted from 0.
  std::vector<int32_t> results;  // Per command: 0, or a negative errno.
};

using Message = std::variant<HelloMessage, OpenMessage, CloseMessage, ReadMessage, ReplyMessage>;

// `caps` decides whether an OPEN carries attr.  REQUIRES: keys and attr within their limits.
std::string EncodeMessage(const Message& message, uint32_t caps);
Result<Message> DecodeMessage(std::string_view packet, uint32_t caps);

// Commands, fetcher to daemon.
struct CapsCommand {  // "caps BITS"
  uint32_t caps = 0;
};
struct CreditCommand {  // "credit N": the daemon may send N more of OPEN, READ, CLOSE.
  uint32_t count = 0;
};
struct CopenCommand {  // "copen ID,SIZE": SIZE >= 0, or a negative errno.
  MsgId msg_id;
  int64_t size = 0;  // Out of range values arrive as the errors of the kernel's decision list:
  int error = 0;     // 0, or the errno that both the OPEN and the command get (EINVAL, ERANGE).
};
struct FilledCommand {  // "filled OBJECT,OFF,LEN": these bytes are in the data file now.
  ObjectId object_id;
  ByteRange range;
};
struct CreadCommand {  // "cread OBJECT,ID[,ERRNO]": a READ is finished (or failed with ERRNO > 0).
  ObjectId object_id;
  MsgId msg_id;
  int error = 0;
};
struct AttrCommand {  // "attr OBJECT,HEX": store with the object, given back at each OPEN.
  ObjectId object_id;
  std::string attr;  // Decoded.
};
struct VerityCommand {  // "verity OBJECT,DIGEST": what the object's bytes are checked against.
  ObjectId object_id;
  Digest digest = {};
};
struct FactsCommand {  // "facts OBJECT,SECONDS,NANOSECONDS,VALIDATOR": what is known besides.
  ObjectId object_id;
  ObjectFacts facts;
};
struct FullCommand {  // "full OBJECT": its data file takes no writes.
  ObjectId object_id;
};
// "through OBJECT,ID,OFF,LEN": the READ's bytes, which are not in the data file, are in the sealed
// memfd that comes with the packet.
struct ThroughCommand {
  ObjectId object_id;
  MsgId msg_id;
  ByteRange range;
};
struct CauseCommand {  // "cause ID,TEXT": why this request is slow or about to fail; for people.
  MsgId msg_id;
  std::string text;
};
// "count NAME,N[,LABEL...]": the fetcher has counted N more of something, for the daemon's metrics.
struct CountCommand {
  std::string name;
  uint64_t more = 0;
  std::vector<std::string> labels;
};
struct CloseCommand {  // "close OBJECT": the fetcher has closed its data fd.
  ObjectId object_id;
};
struct RestoreCommand {};  // "restore": deliver everything pending again.
struct ResumeCommand {     // "resume TOKEN": another fetcher goes on with this connection.
  uint32_t token = 0;      // Not 0.
};

using Command =
    std::variant<CapsCommand, CreditCommand, CopenCommand, FilledCommand, CreadCommand, AttrCommand,
                 CauseCommand, CloseCommand, RestoreCommand, ResumeCommand, VerityCommand,
                 FactsCommand, FullCommand, ThroughCommand, CountCommand>;

// One command without its newline, and back.
Result<Command> ParseCommand(std::string_view line);
std::string FormatCommand(const Command& command);

// The lines of one packet.  Errors: EINVAL empty packet, NUL byte, first byte a newline; E2BIG too
// many lines or too long a packet.
Result<std::vector<std::string_view>> SplitPacket(std::string_view packet);

}  // namespace cachecore::wire

#endif  // CACHECORE_PROTOCOL_WIRE_H_
