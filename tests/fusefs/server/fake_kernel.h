// FakeKernel: the kernel's end of a FUSE connection, on a socketpair, with the test as the readers.
//
// Model    Send queues a request as the kernel does and Await gives its reply.  The daemon's end is
//          given to one server after the other, as the fd store does.  Await also does what the
//          kernel does by itself: after FUSE_NOTIFY_RESEND every unanswered request is sent again
//          under its marked unique, and an INTERRUPT that is answered EAGAIN is sent again.  The
//          kernel resends only what a daemon has taken, which FakeKernel cannot see: a test makes
//          sure that the old server has taken what was sent.  A reply to no request, or to one
//          under its former unique, is refused by the kernel, and counted by FakeKernel.
// Errors   Await: ETIMEDOUT, the request's errno in Reply::error.
// Threads  one.
// Owns     both ends, until CloseDaemonEnd and Unmount.

#ifndef TESTS_FUSEFS_SERVER_FAKE_KERNEL_H_
#define TESTS_FUSEFS_SERVER_FAKE_KERNEL_H_

#include <linux/fuse.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"

namespace fusefs {

class FakeKernel {
 public:
  struct Reply {
    int error = 0;     // Positive errno, or 0.
    std::string body;  // What follows the header.
    // The body as a struct of <linux/fuse.h>; zeroes where it is shorter.
    template <typename T>
    T As() const {
      T value = {};
      body.copy(reinterpret_cast<char*>(&value), sizeof(value));
      return value;
    }
  };

  FakeKernel();

  // A copy of the daemon's end.
  cachecore::UniqueFd DaemonEnd() const;
  // The kernel's end is closed: what is being read ends, and replies are lost.
  void Unmount();

  // Each returns the request's unique.  `caller`: the thread that waits for the reply.
  uint64_t Send(uint32_t opcode, uint64_t node, const std::string& body, pid_t caller);
  uint64_t SendInit(bool offers_resend);
  uint64_t SendLookup(uint64_t parent, const std::string& name, pid_t caller);
  uint64_t SendRead(uint64_t node, cachecore::ByteRange range, pid_t caller);
  // Have no reply of their own.
  void SendForget(uint64_t node);
  void SendInterrupt(uint64_t unique);
  // The unique that the next request gets.
  uint64_t next_unique() const { return next_unique_; }

  // The reply to a request, which may have been resent since.
  cachecore::Result<Reply> Await(uint64_t unique);
  // Takes what has come from the daemon, without waiting; whether `unique` is still unanswered
  // then.
  bool IsWaiting(uint64_t unique);
  // Until the daemon has asked for so many resends.
  cachecore::Status AwaitResends(int count);
  int refused_replies() const { return refused_replies_; }

 private:
  static constexpr std::chrono::seconds kPatience{20};

  void Queue(const std::string& request);
  void TakeWhatHasCome();
  // Takes one packet from the daemon; false when none comes in time.
  bool TakePacket(const cachecore::Deadline& deadline);
  void TakeReply(const fuse_out_header& header, const std::string& body);
  void ResendAll();

  cachecore::UniqueFd kernel_;
  cachecore::UniqueFd daemon_;
  uint64_t next_unique_ = 2;  // Odd ones are those of INTERRUPTs.
  std::string partial_;       // Of a reply that comes in several packets.
  // By the unique without its mark.
  std::map<uint64_t, std::string> waiting_;     // Requests, as sent last.
  std::map<uint64_t, std::string> interrupts_;  // INTERRUPTs, by the request's unique.
  std::map<uint64_t, Reply> replies_;
  int resends_ = 0;
  int refused_replies_ = 0;
};

}  // namespace fusefs

#endif  // TESTS_FUSEFS_SERVER_FAKE_KERNEL_H_
