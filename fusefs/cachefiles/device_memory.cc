#include "fusefs/cachefiles/device_memory.h"

#include <cstring>
#include <type_traits>
#include <variant>

namespace fusefs {

using cachecore::KeptObject;
using cachecore::KeptRequest;
using cachecore::MsgId;
using cachecore::ObjectId;
using cachecore::OutgoingMessage;
using cachecore::PidStamp;
using cachecore::Result;
using cachecore::UniqueFd;
namespace wire = cachecore::wire;

namespace {

constexpr char kDevice[] = "device";
constexpr char kCommands[] = "commands";
constexpr char kTrouble[] = "trouble";
constexpr char kMount[] = "mount";
constexpr char kPoller[] = "poller";
// Followed by a number.
constexpr char kAnswer[] = "answer ";
constexpr char kMessage[] = "message ";
constexpr char kInstance[] = "instance ";
constexpr char kRequest[] = "request ";
constexpr char kCompleter[] = "completer ";

struct CompleterRecord {
  uint64_t pid = 0;
  uint64_t started = 0;
};

struct RequestRecord {
  uint64_t object = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t succeeds = 0;
  uint32_t msg_id = 0;
  uint32_t opcode = 0;
  uint32_t is_new = 0;
  uint32_t has_successor = 0;
  uint32_t may_replace = 0;
  uint32_t volume_size = 0;  // Followed by the keys of volume and cookie.
};

template <typename T>
std::string BytesOf(const T& record) {
  static_assert(std::has_unique_object_representations_v<T>);
  return {reinterpret_cast<const char*>(&record), sizeof(record)};
}

// Of the record at the start of `bytes`.
template <typename T>
std::optional<T> RecordOf(const std::string& bytes) {
  T record;
  if (bytes.size() < sizeof(record)) return std::nullopt;
  std::memcpy(&record, bytes.data(), sizeof(record));
  return record;
}

template <typename T>
T RecordAt(const KeptRecords& records, const char* key) {
  const std::string* bytes = records.Find(key);
  return bytes == nullptr ? T() : RecordOf<T>(*bytes).value_or(T());
}

std::string Numbered(const char* kind, uint64_t number) { return kind + std::to_string(number); }

// Of the numbered records of a kind.
std::vector<std::pair<std::string, std::string>> AllOf(const KeptRecords& records,
                                                       const std::string& kind) {
  std::vector<std::pair<std::string, std::string>> found;
  const auto& all = records.records();
  for (auto it = all.lower_bound(kind); it != all.end() && it->first.starts_with(kind); ++it) {
    found.emplace_back(*it);
  }
  return found;
}

void Renew(KeptRecords* records, const std::string& key, const std::string& bytes) {
  std::optional<RequestRecord> record = RecordOf<RequestRecord>(bytes);
  if (!record) return;
  record->is_new = 1;
  records->Put(key, BytesOf(*record) + bytes.substr(sizeof(*record)));
}

}  // namespace

Result<std::unique_ptr<DeviceMemory>> DeviceMemory::Open(UniqueFd memory) {
  ASSIGN_OR_RETURN(std::unique_ptr<KeptRecords> records, KeptRecords::Open(std::move(memory)));
  return std::unique_ptr<DeviceMemory>(new DeviceMemory(std::move(records)));
}

void DeviceMemory::Clear() {
  while (!records_->records().empty()) {
    const std::string key = records_->records().begin()->first;
    records_->Erase(key);
  }
}

DeviceRecord DeviceMemory::device() const { return RecordAt<DeviceRecord>(*records_, kDevice); }

void DeviceMemory::PutDevice(const DeviceRecord& device) {
  records_->Put(kDevice, BytesOf(device));
}

std::string DeviceMemory::commands() const {
  const std::string* text = records_->Find(kCommands);
  return text == nullptr ? "" : *text;
}

void DeviceMemory::PutCommands(std::string text) { records_->Put(kCommands, std::move(text)); }

std::string DeviceMemory::trouble() const {
  const std::string* text = records_->Find(kTrouble);
  return text == nullptr ? "" : *text;
}

void DeviceMemory::PutTrouble(const std::string& trouble) {
  if (trouble.empty()) {
    records_->Erase(kTrouble);
  } else {
    records_->Put(kTrouble, trouble);
  }
}

std::vector<InstanceRecord> DeviceMemory::instances() const {
  std::vector<InstanceRecord> instances;
  for (const auto& [key, bytes] : AllOf(*records_, kInstance)) {
    if (const auto record = RecordOf<InstanceRecord>(bytes)) instances.push_back(*record);
  }
  return instances;
}

void DeviceMemory::PutInstance(const InstanceRecord& instance) {
  records_->Put(Numbered(kInstance, instance.id), BytesOf(instance));
}

void DeviceMemory::EraseInstance(ObjectId id) { records_->Erase(Numbered(kInstance, id.value)); }

std::vector<KeptObject> DeviceMemory::requests() const {
  std::map<uint64_t, KeptObject> objects;
  for (const auto& [key, bytes] : AllOf(*records_, kRequest)) {
    const std::optional<RequestRecord> record = RecordOf<RequestRecord>(bytes);
    if (!record) continue;
    KeptObject& object = objects[record->object];
    object.number = {record->object};
    const auto opcode = static_cast<wire::Opcode>(record->opcode);
    object.requests.push_back(
        {{record->msg_id}, opcode, {record->begin, record->end}, record->is_new != 0});
    if (opcode != wire::Opcode::kOpen) continue;
    object.volume_key = bytes.substr(sizeof(*record), record->volume_size);
    object.cookie_key = bytes.substr(sizeof(*record) + object.volume_key.size());
    if (record->has_successor != 0) object.succeeds = {record->succeeds};
    object.may_replace = record->may_replace != 0;
  }
  std::vector<KeptObject> found;
  for (auto& [number, object] : objects) found.push_back(std::move(object));
  return found;
}

void DeviceMemory::PutRequest(const OutgoingMessage& message) {
  RequestRecord record;
  record.object = message.object.value;
  std::string keys;
  if (const auto* open = std::get_if<wire::OpenMessage>(&message.message)) {
    record.msg_id = open->msg_id.value;
    record.opcode = static_cast<uint32_t>(wire::Opcode::kOpen);
    record.has_successor = message.succeeds ? 1 : 0;
    record.succeeds = message.succeeds ? message.succeeds->value : 0;
    record.may_replace = message.may_replace ? 1 : 0;
    record.volume_size = static_cast<uint32_t>(open->volume_key.size());
    keys = open->volume_key + open->cookie_key;
  } else {
    const auto& read = std::get<wire::ReadMessage>(message.message);
    record.msg_id = read.msg_id.value;
    record.opcode = static_cast<uint32_t>(wire::Opcode::kRead);
    record.begin = read.range.begin;
    record.end = read.range.end;
  }
  records_->Put(Numbered(kRequest, record.msg_id), BytesOf(record) + keys);
}

void DeviceMemory::EraseRequest(MsgId id) { records_->Erase(Numbered(kRequest, id.value)); }

bool DeviceMemory::HasRequest(MsgId id) const {
  return records_->Find(Numbered(kRequest, id.value)) != nullptr;
}

void DeviceMemory::RenewRequest(MsgId id) {
  const std::string key = Numbered(kRequest, id.value);
  if (const std::string* bytes = records_->Find(key)) Renew(records_.get(), key, *bytes);
}

void DeviceMemory::RenewRequests() {
  for (const auto& [key, bytes] : AllOf(*records_, kRequest)) Renew(records_.get(), key, bytes);
}

MountRecord DeviceMemory::mount() const {
  MountRecord mount;
  const std::string* bytes = records_->Find(kMount);
  constexpr size_t kNumbers = 2 * sizeof(uint64_t);
  if (bytes == nullptr || bytes->size() < kNumbers) return mount;
  std::memcpy(&mount.device, bytes->data(), sizeof(mount.device));
  std::memcpy(&mount.made_file, bytes->data() + sizeof(mount.device), sizeof(mount.made_file));
  mount.path = bytes->substr(kNumbers);
  return mount;
}

void DeviceMemory::PutMount(const MountRecord& mount) {
  records_->Put(kMount, BytesOf(mount.device) + BytesOf(mount.made_file) + mount.path);
}

uint64_t DeviceMemory::poller() const { return RecordAt<uint64_t>(*records_, kPoller); }

void DeviceMemory::PutPoller(uint64_t handle) { records_->Put(kPoller, BytesOf(handle)); }

std::vector<PidStamp> DeviceMemory::completers() const {
  std::vector<PidStamp> processes;
  for (const auto& [key, bytes] : AllOf(*records_, kCompleter)) {
    const auto record = RecordOf<CompleterRecord>(bytes);
    if (record) processes.push_back({static_cast<pid_t>(record->pid), record->started});
  }
  return processes;
}

void DeviceMemory::PutCompleter(const PidStamp& process) {
  const CompleterRecord record = {static_cast<uint64_t>(process.pid), process.started};
  records_->Put(Numbered(kCompleter, record.pid), BytesOf(record));
}

void DeviceMemory::EraseCompleter(pid_t process) {
  records_->Erase(Numbered(kCompleter, static_cast<uint64_t>(process)));
}

std::vector<std::pair<MessageRecord, std::string>> DeviceMemory::messages() const {
  std::map<uint32_t, std::pair<MessageRecord, std::string>> found;
  for (const auto& [key, bytes] : AllOf(*records_, kMessage)) {
    const auto record = RecordOf<MessageRecord>(bytes);
    if (record) found[record->msg_id] = {*record, bytes.substr(sizeof(*record))};
  }
  std::vector<std::pair<MessageRecord, std::string>> messages;
  for (auto& [id, message] : found) messages.push_back(std::move(message));
  return messages;
}

void DeviceMemory::PutMessage(const MessageRecord& message, const std::string& bytes) {
  records_->Put(Numbered(kMessage, message.msg_id), BytesOf(message) + bytes);
}

void DeviceMemory::EraseMessage(MsgId id) { records_->Erase(Numbered(kMessage, id.value)); }

std::map<uint64_t, AnswerRecord> DeviceMemory::answers() const {
  std::map<uint64_t, AnswerRecord> answers;
  for (const auto& [key, bytes] : AllOf(*records_, kAnswer)) {
    const auto unique = RecordOf<uint64_t>(bytes);
    if (unique) answers[*unique] = {*unique, bytes.substr(sizeof(*unique))};
  }
  return answers;
}

void DeviceMemory::PutAnswer(const AnswerRecord& answer) {
  records_->Put(Numbered(kAnswer, answer.unique), BytesOf(answer.unique) + answer.bytes);
}

void DeviceMemory::EraseAnswer(uint64_t unique) { records_->Erase(Numbered(kAnswer, unique)); }

}  // namespace fusefs
