// DeviceMemory: what the next daemon has to know of the cachefiles device, as records.
//
// Model    one record each for the device, its commands, its trouble, its poller, its mount, the
//          answer to the last request that changed anything, each instance, each process of
//          ExactIds, each request that the program was given, and each message that may not have
//          reached it.  Changes count from Commit on; the answer is committed with what it answers,
//          before it is sent.
// Errors   a record that does not decode is not there.
// Threads  thread-compatible.
// Crash    as KeptRecords.
// See      docs/recovery.md "The cachefiles device".

#ifndef FUSEFS_CACHEFILES_DEVICE_MEMORY_H_
#define FUSEFS_CACHEFILES_DEVICE_MEMORY_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/cache/cache.h"
#include "cachecore/system/pid_stamp.h"
#include "fusefs/cachefiles/kept_records.h"

namespace fusefs {

// Kept as it lies in memory: no padding, no pointers.
struct DeviceRecord {
  uint64_t last_handle = 0;
  uint32_t is_open = 0;
  uint32_t is_attached = 0;
  uint32_t is_dead = 0;  // Closed after a `bind ondemand`: what cannot be fetched fails.
  uint32_t last_msg_id = 0;
  int32_t client = 0;
  uint32_t unused = 0;
};

struct InstanceRecord {
  uint64_t object = 0;
  uint64_t handle = 0;
  uint64_t split_next = 0;
  int32_t split_caller = 0;  // 0: no write goes on.
  uint32_t id = 0;
  uint32_t open_msg_id = 0;
  int32_t reader = 0;
  uint32_t is_live = 0;
  uint32_t unused = 0;
};

// A message that may not have reached its reader.
struct MessageRecord {
  uint32_t msg_id = 0;
  uint32_t object = 0;
  uint32_t kind = 0;   // DeviceMessage::Kind.
  int32_t thread = 0;  // 0: it waits for a read.
};

struct MountRecord {
  uint64_t device = 0;  // Its dev_t.
  uint64_t made_file = 0;
  std::string path;
};

// An answer to the kernel.
struct AnswerRecord {
  uint64_t unique = 0;  // Without the bit that says that the kernel has sent it again.
  std::string bytes;
};

class DeviceMemory {
 public:
  // `memory`: as KeptRecords::Open.
  static cachecore::Result<std::unique_ptr<DeviceMemory>> Open(cachecore::UniqueFd memory);

  int memory() const { return records_->memory(); }
  bool has_changes() const { return records_->has_changes(); }
  void Commit() { records_->Commit(); }
  // Nothing of the device goes on.
  void Clear();

  DeviceRecord device() const;
  void PutDevice(const DeviceRecord& device);
  // CommandState's own text.
  std::string commands() const;
  void PutCommands(std::string text);
  // Why the program's last write was not stored whole, or "".
  std::string trouble() const;
  void PutTrouble(const std::string& trouble);
  std::vector<InstanceRecord> instances() const;
  void PutInstance(const InstanceRecord& instance);
  void EraseInstance(cachecore::ObjectId id);
  // Of requests and what makes their objects again; `live` is not set.
  std::vector<cachecore::KeptObject> requests() const;
  // REQUIRES: `message` is an OPEN or a READ.
  void PutRequest(const cachecore::OutgoingMessage& message);
  void EraseRequest(cachecore::MsgId id);
  bool HasRequest(cachecore::MsgId id) const;
  // It is to be delivered again, if it is there.
  void RenewRequest(cachecore::MsgId id);
  void RenewRequests();
  MountRecord mount() const;
  void PutMount(const MountRecord& mount);
  uint64_t poller() const;  // 0: none.
  void PutPoller(uint64_t handle);
  // The processes of ExactIds.
  std::vector<cachecore::PidStamp> completers() const;
  void PutCompleter(const cachecore::PidStamp& process);
  void EraseCompleter(pid_t process);
  // In order of msg_id.
  std::vector<std::pair<MessageRecord, std::string>> messages() const;
  void PutMessage(const MessageRecord& message, const std::string& bytes);
  void EraseMessage(cachecore::MsgId id);
  // By `unique`.
  std::map<uint64_t, AnswerRecord> answers() const;
  void PutAnswer(const AnswerRecord& answer);
  void EraseAnswer(uint64_t unique);

 private:
  explicit DeviceMemory(std::unique_ptr<KeptRecords> records) : records_(std::move(records)) {}

  const std::unique_ptr<KeptRecords> records_;
};

}  // namespace fusefs

#endif  // FUSEFS_CACHEFILES_DEVICE_MEMORY_H_
