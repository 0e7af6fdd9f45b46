// Deliveries: messages for programs without the preloaded library, put into their threads by
// holdfast-injectd.
//
// Model    a read that is to give an OPEN waits while the job is at holdfast-injectd.  It ends with
//          0 bytes when the thread is interrupted, which the job does.  A message whose job did not
//          come to its end waits, and is the next one that such a read gives.  When
//          holdfast-injectd has died, the thread itself shows whether it has the message.  A thread
//          that was started is watched until it has the message, or has said that it cannot.  A
//          process that completes READs which others have read needs the window of ids too: it gets
//          it in its first write into an object's file, whose answer waits for that.
// Errors   the reader's read and the OPEN end with the errno of a refusal; the log has its cause.
// Threads  the cachefiles thread.
// Owns     holdfast-injectd; the requests of the reads that wait.
// Crash    holdfast-injectd ends with the daemon.  The next daemon has the messages that were here
//          (DeviceMemory), and asks their threads, as after the death of holdfast-injectd alone;
//          the reads that waited come again.
// See      fusefs/inject/injection.h; docs/design.md "The cachefiles device".

#ifndef FUSEFS_CACHEFILES_DELIVERIES_H_
#define FUSEFS_CACHEFILES_DELIVERIES_H_

#include <fuse_lowlevel.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "fusefs/cachefiles/cachefiles_device.h"
#include "fusefs/cachefiles/device_memory.h"
#include "fusefs/cachefiles/exact_ids.h"
#include "fusefs/cachefiles/injector.h"

namespace fusefs {

class Deliveries {
 public:
  // `mounted`: the file system of the device.
  Deliveries(const std::string& fault_file, dev_t mounted, CachefilesDevice* device,
             DeviceMemory* memory)
      : mounted_(mounted),
        device_(device),
        memory_(memory),
        exact_ids_(memory),
        injector_(fault_file) {}
  ~Deliveries();
  Deliveries(const Deliveries&) = delete;
  Deliveries& operator=(const Deliveries&) = delete;

  // Goes on with the messages that the last daemon had here.
  void Resume();
  // What a read of the device by `thread`, which has the preloaded library, gives: a message that
  // waits here, or the next one of the device; no bytes are none.
  cachecore::Result<DeviceMessage> NextWithLibrary(pid_t thread, size_t room);
  // Answers a read by a program without the preloaded library that has room for `room` bytes.
  void Read(fuse_req_t req, size_t room);
  // Answers a write into an object's file that has taken `written` bytes at a page's border.
  void AnswerWrite(fuse_req_t req, size_t written);
  // The thread that was to get this message could not: a result for its ioctl.
  int Fail(uint32_t msg_id, pid_t thread, int error);
  ExactIds& exact_ids() { return exact_ids_; }
  // Whether a read gives a message that waits here.
  bool HasWaiting();
  // What has changed since the last call.  True: a message waits that did not wait before.
  bool Tend();
  // For poll(2): -1 for none, and how long to wait until the next Tend.
  int fd() const { return injector_.fd(); }
  int timeout_ms() const;

 private:
  struct Delivery {
    fuse_req_t req = nullptr;  // Null: its read has ended.
    pid_t thread = 0;
    DeviceMessage message;
    cachecore::Duration began{0};
    bool is_interrupted = false;
    bool is_lost = false;     // With the process that had its job.
    bool is_started = false;  // The thread runs the code since `began`.
    // A write's, which has no message.
    std::optional<size_t> written = {};
    uint64_t thread_started = 0;  // Of such a one.
  };

  static void Interrupt(fuse_req_t req, void* delivery);
  cachecore::Result<DeviceMessage> Next(pid_t thread, size_t room);
  void Begin(fuse_req_t req, pid_t thread, DeviceMessage message);
  bool NeedsWindow(pid_t thread);
  // Ends its call, unless that has ended.
  static void Answer(Delivery* delivery);
  InjectionJob JobFor(pid_t thread) const;
  void Log(const std::string& line);
  void Finish(const InjectionReport& report);
  void Refuse(Delivery* delivery, const cachecore::Status& cause);
  // True once it is known whether the thread has the message.
  bool Settle(Delivery* delivery);
  bool SettleStarted(Delivery* delivery);
  bool HasTaken(const Delivery& delivery);
  void Forget(const Delivery& delivery);
  void KeepWaiting(Delivery* delivery);
  void Keep(const DeviceMessage& message, pid_t thread);

  const dev_t mounted_;
  CachefilesDevice* const device_;
  DeviceMemory* const memory_;
  ExactIds exact_ids_;
  Injector injector_;
  uint64_t last_serial_ = 0;
  std::map<uint64_t, Delivery> deliveries_;
  std::deque<DeviceMessage> waiting_;
  bool has_new_waiting_ = false;
  bool gives_addresses_ = false;  // The last message went to a program without the library.
  // How often a process was to get one, by its number and its start: numbers recur.
  std::map<std::pair<pid_t, uint64_t>, int> without_window_;
  // The last refusal that was logged: a client may read again at once, for ever.
  std::string logged_;
  cachecore::Duration logged_at_{0};
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_DELIVERIES_H_
