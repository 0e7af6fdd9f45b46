// CachefilesDevice: the kernel's on-demand device over a Cache, without the file system around it.
//
// Model    one open of the device at a time, which lives until the device and each object's file
//          are closed.  `bind ondemand` attaches to the Cache as its fetcher; the last close of the
//          device detaches, and what waits then fails with EIO.  A read gives one message or
//          nothing and never waits.  The reader of an OPEN opens the object's file right after it
//          (OpenObject); what it writes there goes to the data file and then counts as filled.
// Errors   0 or more, or a negative errno, the kernel's for the same case.
// Threads  one thread.
// Owns     the data files of the instances that are open.
// Crash    Keep puts what has changed into the DeviceMemory, from which the next daemon's Resume
//          goes on; what a call has done in the Cache, and was not kept, is done once more by the
//          same call.
// See      docs/cachefiles-compat.md; docs/recovery.md "The cachefiles device".

#ifndef FUSEFS_CACHEFILES_CACHEFILES_DEVICE_H_
#define FUSEFS_CACHEFILES_CACHEFILES_DEVICE_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "fusefs/cachefiles/cache_directory.h"
#include "fusefs/cachefiles/command_state.h"
#include "fusefs/cachefiles/device_memory.h"
#include "fusefs/service/fd_store.h"

namespace fusefs {

// What a read of the device gives.
struct DeviceMessage {
  enum class Kind { kText, kOpen, kRead, kClose };
  Kind kind = Kind::kText;  // The status line, or nothing.
  std::string bytes;
  cachecore::MsgId msg_id;
  cachecore::ObjectId object;
};

class CachefilesDevice : private CommandActions {
 public:
  // Of one open of an object's file; never 0.
  using Handle = uint64_t;

  static constexpr int kLargestErrno = 4095;  // The kernel's MAX_ERRNO.
  // The name in the fd store of the directory that the device is bound to.
  static constexpr char kStoredDirectory[] = "cachefiles.directory";

  // `max_write`: the longest write that the kernel gives us whole.  `mark_file`: keeps which
  // directory was bound last, for as long as the grants are kept.
  CachefilesDevice(cachecore::Cache* cache, CacheDirectory* directory, size_t max_write,
                   DeviceMemory* memory, FdStore* store, std::string mark_file)
      : cache_(cache),
        directory_(directory),
        max_write_(max_write),
        memory_(memory),
        store_(store),
        mark_file_(std::move(mark_file)),
        last_directory_(ReadMark()) {}

  // Goes on where the last daemon has left off; first of all, and before the Cache is read from.
  cachecore::Status Resume(cachecore::UniqueFd directory);
  // Puts what has changed into the memory.  After each call, before it is answered.
  void Keep();

  // The device.  `caller` is a thread's id, or 0 when it lives where we cannot see it.
  int Open(pid_t caller);
  void Close();
  // Nothing that was open can be used any more: closes the device and each object's file.
  void CloseAll();
  // `caller` is to open the file of an OPEN.  No bytes: there is no message.
  cachecore::Result<DeviceMessage> Read(pid_t caller, size_t room);
  int64_t Write(pid_t caller, std::string_view text);
  // The reader of this OPEN could not open its file.
  int FailOpen(uint32_t msg_id, int error);
  int FailOpen(cachecore::MsgId msg_id, const cachecore::Status& cause);
  // As poll(2) has it: POLLIN for a message, POLLOUT while culling is wanted.
  short Readiness();

  // What a client has made of the device; for people.
  struct Description {
    bool is_open = false;
    pid_t client = 0;  // The thread that has opened or read it last, or 0.
    bool is_bound = false;
    bool is_ondemand = false;
    std::string directory;
    std::string tag;
    std::string trouble;  // Why the last write into an object was not stored whole, or "".
  };
  Description Describe() const;
  // Grows with each change of it.
  uint64_t revision() const { return revision_; }

  // For programs whose ids are addresses (kIdWindow).  Other numbers are the ids themselves.
  static uint64_t AddressOf(cachecore::MsgId id);
  cachecore::MsgId IdOf(uint32_t number) const;
  // Whether a message that Read gave needs to reach a reader still.
  bool IsUnanswered(const DeviceMessage& message);
  // Another thread is to open the file of an OPEN, or, 0, none yet.
  void SetReader(const DeviceMessage& open, pid_t reader);
  void LogError(const std::string& line) { cache_->log().Error(line); }

  // An object's file.
  bool HasObject(cachecore::ObjectId id) const { return instances_.contains(id); }
  // For the thread that has read its OPEN only.
  cachecore::Result<Handle> OpenObject(cachecore::ObjectId id, pid_t caller);
  void CloseObject(Handle handle);
  int64_t WriteObject(Handle handle, pid_t caller, std::string_view bytes, uint64_t offset);
  int Complete(Handle handle, uint32_t msg_id);
  cachecore::Result<uint64_t> SizeOf(Handle handle);
  // SEEK_DATA or SEEK_HOLE.
  cachecore::Result<uint64_t> Seek(Handle handle, uint64_t offset, int whence);

 private:
  // What a delivered OPEN has made.
  struct Instance {
    cachecore::UniqueFd file;
    cachecore::ObjectNumber object;
    cachecore::MsgId msg_id;  // Of its OPEN.
    pid_t reader = 0;         // 0: none has the OPEN now.
    Handle handle = 0;        // 0: not opened yet.
  };
  // Where a write that the kernel has split goes on.
  struct Split {
    pid_t caller = 0;
    uint64_t next = 0;
  };
  struct OpenFile {
    cachecore::ObjectId object;
    std::optional<Split> split;
  };

  int Bind(const std::string& directory, bool ondemand) override;
  int Copen(const cachecore::wire::CopenCommand& command) override;
  int Restore() override;
  int Cull(const std::string& name) override;
  int InUse(const std::string& name) override;

  // The same for the same directory, and for others hardly ever.  Never 0.
  static uint32_t MarkOf(int directory);
  uint32_t ReadMark() const;  // 0: none was bound.
  bool KeepMark(uint32_t mark);
  int Execute(const cachecore::wire::Command& command);
  bool Attach();
  void DropEnded();
  InstanceRecord RecordOf(cachecore::ObjectId id, const Instance& instance) const;
  // These bytes of the object are in its file.  False when nobody may say so any more.
  bool Fill(cachecore::ObjectId id, const Instance& instance, cachecore::ByteRange range);
  // Of the thread whose command is being carried out.
  cachecore::Result<cachecore::UniqueFd> OpenWorkingDirectory() const;
  // The file that `handle` writes to, or null.
  const Instance* InstanceOf(Handle handle) const;
  // The OPEN of an object whose file was not opened yet, or the end.
  std::map<cachecore::ObjectId, Instance>::iterator FindUnopened(cachecore::MsgId msg_id);
  void EndInstance(cachecore::ObjectId id);
  void ForgetIfUnused();
  void NoteClient(pid_t client);
  // How the last write into an object has ended: "", or what is wrong and its cure.
  void NoteTrouble(const std::string& trouble);

  cachecore::Cache* const cache_;
  CacheDirectory* const directory_;
  const size_t max_write_;
  DeviceMemory* const memory_;
  FdStore* const store_;
  const std::string mark_file_;
  uint32_t last_directory_;  // The mark of the directory that was bound last; 0: none.
  bool is_open_ = false;
  bool is_attached_ = false;
  bool is_dead_ = false;  // Closed after a `bind ondemand`, until the next one.
  pid_t client_ = 0;
  std::string trouble_;
  uint64_t revision_ = 0;
  pid_t writer_ = 0;  // Of the command that is being carried out.
  CommandState commands_;
  Handle last_handle_ = 0;
  cachecore::MsgId last_msg_id_;  // The last one that was given to a request and read.
  std::map<cachecore::ObjectId, Instance> instances_;
  std::map<Handle, OpenFile> files_;
  // What Keep has to look at.
  std::set<cachecore::ObjectId> changed_;
  bool commands_changed_ = false;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_CACHEFILES_DEVICE_H_
