// DeviceClient: one connection of a fetcher to holdfastd.  All that a fetcher needs to link.
//
// Model    messages (OPEN, READ, CLOSE) come in through ReadMessages; answers are queued by the
//          calls below and leave with Flush, many to a packet.  Credits are handled inside.  A
//          connection that ends is not used again: connect again, and everything pending is
//          delivered again.
// Errors   ECONNRESET the daemon is gone; EBADMSG it sent something that is no message; EBUSY
//          another fetcher is attached; EPERM this uid may not attach; ENOENT, ECONNREFUSED nothing
//          listens.
// Threads  thread-compatible.  Connect blocks for at most kHelloTimeout, Resume until the daemon
//          answers or ends; nothing else blocks. Handler callbacks run inside ReadMessages and may
//          make any call but ReadMessages.
// Owns     the socket.  An OpenRequest owns its data fd.
// Cost     the output queue is bounded by what is being answered: a line per answer or piece.
// See      docs/protocol.md; fetcher/client/example_fetcher.cc.

#ifndef FETCHER_CLIENT_CLIENT_H_
#define FETCHER_CLIENT_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/values/ids.h"

namespace fetcher {

using cachecore::ByteRange;
using cachecore::Duration;
using cachecore::Generation;
using cachecore::MsgId;
using cachecore::ObjectId;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

struct OpenRequest {
  MsgId msg_id;
  ObjectId object_id;
  std::string volume_key;
  std::string cookie_key;
  std::string attr;       // What SetAttr last stored, "" if nothing.
  UniqueFd data_fd;       // Where the object's bytes go, by pwrite.
  bool is_check = false;  // Find out whether attr still holds, and store none if it does.
};

class DeviceHandler {
 public:
  virtual ~DeviceHandler() = default;
  // Answer with Copen or CopenError.
  virtual void OnOpen(OpenRequest open) = 0;
  // Write the bytes, declare them with Filled, answer with Complete or Fail.
  virtual void OnRead(MsgId msg_id, ObjectId object_id, ByteRange range) = 0;
  // As OnRead, for a range that no read waits for yet.
  virtual void OnReadAhead(MsgId msg_id, ObjectId object_id, ByteRange range) {
    OnRead(msg_id, object_id, range);
  }
  // The object is not wanted any more: close its data fd.  No answer.
  virtual void OnClose(ObjectId object_id) = 0;
  // The daemon refused `command` with `error`.  EINVAL mostly means that the request was
  // withdrawn meanwhile (its reader was killed), which is no error.
  virtual void OnRejected(const cachecore::wire::Command& command, int error) {
    static_cast<void>(command);
    static_cast<void>(error);
  }
};

class DeviceClient {
 public:
  static constexpr std::chrono::seconds kHelloTimeout{5};
  // Unanswered requests above which no more credits are given; the daemon keeps what is over.
  static constexpr size_t kMaxUnanswered = 65536;

  // Called at least every kWaitingInterval while one of the two below waits; false: ECANCELED.
  using Waiting = std::function<bool()>;
  static constexpr std::chrono::milliseconds kWaitingInterval{50};

  // Connects, is greeted, switches the capabilities on and asks for everything pending (`restore`).
  // REQUIRES: 0 < credits <= wire::kMaxCredits.
  static Result<std::unique_ptr<DeviceClient>> Connect(const std::string& path, uint32_t credits,
                                                       const Waiting& waiting = {});
  // Goes on with a connection that another process had, in the same way, and waits for the daemon's
  // mark for as long as the connection lives.
  static Result<std::unique_ptr<DeviceClient>> Resume(UniqueFd connection, uint32_t credits,
                                                      const Waiting& waiting = {});

  int fd() const { return socket_.get(); }
  Generation generation() const { return generation_; }
  // Poll fd() for input always, and for output while this holds.
  bool WantsWrite() const { return !packets_.empty(); }

  // Delivers what has arrived.  An error means that the connection is over.
  Status ReadMessages(DeviceHandler* handler);

  // Answers to OPEN.  `error` is a positive errno, `cause` a line for the operator.
  void Copen(MsgId open, uint64_t size_bytes);
  void CopenError(MsgId open, int error, const std::string& cause);
  // These bytes are in the data file now.  Only whole 4 KiB blocks count, the object's end
  // excepted.
  void Filled(ObjectId object, ByteRange range);
  // Answers to READ.
  void Complete(ObjectId object, MsgId read);
  void Fail(ObjectId object, MsgId read, int error, const std::string& cause);
  // Stores up to kMaxAttrSize bytes with the object, before anything queued later.
  void SetAttr(ObjectId object, const std::string& attr);
  // Names the digest that the object is checked against, before its Copen.  REQUIRES: TakesVerity.
  void SetVerity(ObjectId object, const cachecore::Digest& digest);
  bool TakesVerity() const { return (caps_ & cachecore::wire::kCapVerity) != 0; }
  // Says what else is known of the object, where the daemon wants to know.
  void SetFacts(ObjectId object, const cachecore::ObjectFacts& facts);
  // Where the daemon serves what cannot be kept: says that the data file takes no writes, and
  // brings a READ's bytes, at their offset in `file`, a sealed memfd.  REQUIRES: TakesThrough.
  bool TakesThrough() const { return (caps_ & cachecore::wire::kCapThrough) != 0; }
  void Full(ObjectId object);
  void Through(ObjectId object, MsgId read, ByteRange range, UniqueFd file);
  // How many of these files the daemon may not have taken yet.
  size_t throughs() const { return throughs_; }
  // Says why a request that is still being worked on takes its time.
  void Cause(MsgId request, const std::string& text);
  // Says what was counted, where the daemon wants to know.
  void Count(const cachecore::wire::CountCommand& count);
  bool TakesCounts() const { return (caps_ & cachecore::wire::kCapCount) != 0; }
  // Gives the instance up; the object's next READ, and those that it has, come with a new OPEN.
  void Close(ObjectId object);
  // Asks for everything pending again.
  void Restore();

  // Sends what is queued.  What the socket does not take now stays (WantsWrite).
  Status Flush();

 private:
  struct Packet {
    std::string text;
    std::vector<cachecore::wire::Command> commands;
    UniqueFd file;  // Goes with it, if there is one.
  };

  explicit DeviceClient(UniqueFd socket) : socket_(std::move(socket)) {}

  Status AwaitHello(uint32_t token, Duration patience, const Waiting& waiting);
  Status Greeted(const cachecore::wire::HelloMessage& hello);
  Status Introduce(uint32_t credits);
  Status Dispatch(std::string_view bytes, UniqueFd fd, bool fd_lost, DeviceHandler* handler);
  Status HandleReply(const cachecore::wire::ReplyMessage& reply, DeviceHandler* handler);
  // Queues commands that must travel in one packet if the peer takes batches.
  void Queue(std::vector<cachecore::wire::Command> group);
  void Seal();
  void GrantCredits();
  // A request that needs no answer any more: it has one, or the daemon has none such.
  void Settled(MsgId request) { unanswered_.erase(request); }
  // The same for all of an object that is not open any more.
  void SettleAll(ObjectId object) {
    std::erase_if(unanswered_, [object](const auto& entry) { return entry.second == object; });
  }

  UniqueFd socket_;
  Generation generation_;
  uint32_t caps_ = 0;     // What both sides know.
  uint32_t credits_ = 0;  // What the daemon may have at most.
  uint32_t spent_ = 0;    // Messages received whose credit has not been given back.
  std::unordered_map<MsgId, ObjectId> unanswered_;  // OPENs and READs, with their objects.
  size_t throughs_ = 0;                             // `through` commands without a REPLY.
  uint32_t next_reply_ = 0;     // The packet number that the next REPLY must carry.
  Packet open_;                 // Being filled.
  std::deque<Packet> packets_;  // Complete, waiting for the socket.
  std::deque<Packet> sent_;     // Waiting for their REPLY.
};

}  // namespace fetcher

#endif  // FETCHER_CLIENT_CLIENT_H_
