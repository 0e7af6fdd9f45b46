#include "cachecore/offline/verify.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "cachecore/offline/verify_content.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/store/data_store.h"
#include "cachecore/store/metadata_schema.h"
#include "cachecore/store/rocksdb_database.h"
#include "cachecore/values/names.h"

namespace cachecore {
namespace {

std::string Text(uint64_t number) { return std::to_string(number); }

class Verifier {
 public:
  Verifier(const VerifyOptions& options, std::string boot_id, std::unique_ptr<RocksDbDatabase> db)
      : options_(options), boot_id_(std::move(boot_id)), db_(std::move(db)) {}

  VerifyReport Run();

 private:
  // The numbers seen of one counter, against its next.
  struct Highest {
    uint64_t number = 0;
    std::string where;  // Empty: none seen.
  };
  struct Known {
    ObjectRecord record;
    bool indexed = false;
    PresenceMap durable;
    PresenceMap trusted;
  };

  bool IsEmpty() const;
  void ReadVersion();
  void ReadVolumes();
  void ReadVolumeIndex();
  void ReadObjects();
  void ReadObjectIndex();
  void ReadPresence();
  void ReadJournal();
  void ReadUses();
  void ReadQuarantine();
  void ReadCounters();
  void LookForUnknownKinds();
  void CheckRequest(const JournalRecord& request);
  void CheckDataFile(const Known& object);
  void CheckDataDirectory();
  void NoteDataFile(const std::filesystem::path& path);
  void CompareContent(const VerifyOptions::Content& content);

  // Visits every record of a kind.
  void ScanKind(char kind, const std::function<Status(std::string_view, std::string_view)>& visit);
  void Fault(std::string subject, std::string what) {
    report_.faults.push_back({std::move(subject), std::move(what)});
  }
  void Note(std::string subject, std::string what) {
    report_.notes.push_back({std::move(subject), std::move(what)});
  }
  void See(Counter counter, uint64_t number, const std::string& where);
  std::string NameOf(const ObjectRecord& object) const;
  std::string PathOf(ObjectNumber number) const {
    return DataStore::PathIn(options_.cache_dir + "/data", number);
  }

  const VerifyOptions& options_;
  const std::string boot_id_;  // 16 bytes.
  const std::unique_ptr<RocksDbDatabase> db_;
  VerifyReport report_;
  std::map<uint64_t, std::string> volumes_;
  std::set<uint64_t> indexed_volumes_;
  std::map<uint64_t, Known> objects_;
  std::map<Counter, Highest> seen_;
};

void Verifier::ScanKind(char kind,
                        const std::function<Status(std::string_view, std::string_view)>& visit) {
  const Status scanned =
      db_->Scan(std::string(1, kind), [&](std::string_view key, std::string_view value) {
        const Status status = visit(key, value);
        if (!status.ok()) Fault("record " + schema::Quoted(key), status.message());
        return true;
      });
  if (scanned.ok()) return;
  Fault(std::string("records of kind ") + kind,
        "not all of them can be read: " + scanned.message());
}

void Verifier::See(Counter counter, uint64_t number, const std::string& where) {
  Highest& highest = seen_[counter];
  if (highest.where.empty() || number > highest.number) highest = {number, where};
}

std::string Verifier::NameOf(const ObjectRecord& object) const {
  const auto volume = volumes_.find(object.volume.value);
  return "object " + Text(object.number.value) + " (" +
         (volume == volumes_.end() ? "volume " + Text(object.volume.value) : volume->second) + "/" +
         object.cookie + ")";
}

bool Verifier::IsEmpty() const {
  bool empty = true;
  const Status scanned = db_->Scan("", [&](std::string_view, std::string_view) {
    empty = false;
    return false;
  });
  return scanned.ok() && empty;
}

void Verifier::ReadVersion() {
  const Result<std::optional<std::string>> value = db_->Get(schema::VersionKey());
  if (value.ok() && value->has_value()) {
    const Result<uint32_t> version = schema::DecodeVersion(**value);
    if (!version.ok()) {
      Fault("schema", version.status().message());
    } else if (*version > schema::kVersion) {
      Fault("schema", "written by a newer Holdfast (schema " + Text(*version) +
                          "): what is said of the records may be wrong");
    }
  } else {
    // The first record that a new database gets.
    if (value.ok() && IsEmpty()) {
      Note("database", "is empty: a crash while it was made leaves that");
    } else {
      Fault("schema", value.ok() ? "its record is missing" : value.status().message());
    }
  }
}

void Verifier::ReadVolumes() {
  ScanKind(schema::kVolume, [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(const VolumeRecord volume, schema::DecodeVolume(key, value));
    const std::string subject = "volume " + Text(volume.number.value);
    if (!IsLegalVolumeKey(volume.key)) {
      Fault(subject, schema::Quoted(volume.key) + " is no legal volume key");
    }
    if (volume.number < kFirstObjectNumber) Fault(subject, "its number is the file system's own");
    See(Counter::kObjectNumber, volume.number.value, subject);
    volumes_[volume.number.value] = volume.key;
    return Status();
  });
}

void Verifier::ReadVolumeIndex() {
  ScanKind(schema::kVolumeIndex, [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(const VolumeRecord index, schema::DecodeVolumeIndex(key, value));
    const std::string subject = "volume key " + schema::Quoted(index.key);
    const auto volume = volumes_.find(index.number.value);
    if (volume == volumes_.end()) {
      Fault(subject, "names volume " + Text(index.number.value) + ", which has no record");
    } else if (volume->second != index.key) {
      Fault(subject, "names volume " + Text(index.number.value) + ", whose key is " +
                         schema::Quoted(volume->second));
    } else {
      indexed_volumes_.insert(index.number.value);
    }
    return Status();
  });
  for (const auto& [number, key] : volumes_) {
    if (!indexed_volumes_.contains(number)) {
      Fault("volume " + Text(number), "no key record names it");
    }
  }
}

void Verifier::ReadObjects() {
  ScanKind(schema::kObject, [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(ObjectRecord object, schema::DecodeObject(key, value));
    const std::string subject = NameOf(object);
    if (!IsLegalCookie(object.cookie)) {
      Fault(subject, schema::Quoted(object.cookie) + " is no legal cookie");
    }
    if (object.number < kFirstObjectNumber) Fault(subject, "its number is the file system's own");
    if (!volumes_.contains(object.volume.value)) {
      Fault(subject, "its volume " + Text(object.volume.value) + " has no record");
    }
    if (volumes_.contains(object.number.value)) Fault(subject, "its number is a volume's too");
    See(Counter::kObjectNumber, object.number.value, subject);
    const uint64_t number = object.number.value;
    const uint64_t size = object.size_bytes;
    objects_.try_emplace(number,
                         Known{std::move(object), false, PresenceMap(size), PresenceMap(size)});
    return Status();
  });
}

void Verifier::ReadObjectIndex() {
  ScanKind(schema::kObjectIndex, [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(const ObjectRecord index, schema::DecodeObjectIndex(key, value));
    const std::string subject =
        "object key " + schema::Quoted(index.cookie) + " of volume " + Text(index.volume.value);
    const auto object = objects_.find(index.number.value);
    if (object == objects_.end()) {
      Fault(subject, "names object " + Text(index.number.value) + ", which has no record");
    } else if (object->second.record.volume != index.volume ||
               object->second.record.cookie != index.cookie) {
      Fault(subject, "names " + NameOf(object->second.record));
    } else {
      object->second.indexed = true;
    }
    return Status();
  });
  for (const auto& [number, object] : objects_) {
    if (!object.indexed) Fault(NameOf(object.record), "no key record names it");
  }
}

void Verifier::ReadPresence() {
  const auto read = [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(const schema::PresenceKeyParts parts, schema::ParsePresenceKey(key));
    const bool durable = parts.boot_id.empty();
    // What another boot has left is never trusted, and deleted at the next start.
    if (!durable && parts.boot_id != boot_id_) return Status();
    const auto object = objects_.find(parts.object.value);
    if (object == objects_.end()) {
      Fault("presence of object " + Text(parts.object.value), "the object has no record");
      return Status();
    }
    Status merged = durable ? object->second.durable.MergeLeaf(parts.leaf, value) : Status();
    if (merged.ok() && (durable || !options_.as_new_boot)) {
      merged = object->second.trusted.MergeLeaf(parts.leaf, value);
    }
    if (!merged.ok()) {
      Fault(NameOf(object->second.record), std::string(durable ? "durable" : "this boot's") +
                                               " presence, leaf " + Text(parts.leaf) + ": " +
                                               merged.message());
    }
    return Status();
  };
  ScanKind(schema::kDurablePresence, read);
  ScanKind(schema::kBootPresence, read);
  for (const auto& [number, object] : objects_) {
    report_.durable_bytes += object.durable.present_bytes();
    report_.present_bytes += object.trusted.present_bytes();
  }
}

void Verifier::CheckRequest(const JournalRecord& request) {
  const std::string subject = "request " + Text(request.msg_id.value);
  See(Counter::kMsgId, request.msg_id.value, subject);
  See(Counter::kObjectNumber, request.object.value, subject);
  // Generation 0 was never handed out: no fetcher had been attached.
  if (request.generation.value != 0) See(Counter::kGeneration, request.generation.value, subject);
  // An OPEN's object has no record before its answer.
  if (request.opcode == static_cast<uint32_t>(wire::Opcode::kOpen)) return;
  if (request.opcode != static_cast<uint32_t>(wire::Opcode::kRead)) {
    Fault(subject, "its opcode is " + Text(request.opcode));
    return;
  }
  const auto object = objects_.find(request.object.value);
  if (object == objects_.end()) {
    Fault(subject, "its object " + Text(request.object.value) + " has no record");
  } else if (request.range.empty() || request.range.end > object->second.record.size_bytes) {
    Fault(subject, "its range " + request.range.ToString() + " is not inside " +
                       NameOf(object->second.record) + " of " +
                       Text(object->second.record.size_bytes) + " bytes");
  }
}

void Verifier::ReadJournal() {
  ScanKind(schema::kJournal, [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(const JournalRecord request, schema::DecodeJournal(key, value));
    CheckRequest(request);
    return Status();
  });
}

void Verifier::ReadUses() {
  ScanKind(schema::kUse, [this](std::string_view key, std::string_view value) {
    ASSIGN_OR_RETURN(const UseRecord use, schema::DecodeUse(key, value));
    if (!objects_.contains(use.object.value)) {
      Fault("record " + schema::Quoted(key),
            "its object " + Text(use.object.value) + " has no record");
    }
    return Status();
  });
}

void Verifier::ReadQuarantine() {
  ScanKind(schema::kQuarantine, [this](std::string_view key, std::string_view) {
    Note("record " + schema::Quoted(key.substr(std::min<size_t>(key.size(), 9))),
         "was damaged, and is in quarantine");
    return Status();
  });
}

void Verifier::ReadCounters() {
  std::map<Counter, uint64_t> next;
  ScanKind(schema::kCounter, [&](std::string_view key, std::string_view value) {
    if (key.size() != 2) return Status(EBADMSG, "there is no such counter");
    const auto counter = static_cast<Counter>(static_cast<uint8_t>(key[1]));
    if (schema::NameOf(counter) == nullptr) return Status(EBADMSG, "there is no such counter");
    ASSIGN_OR_RETURN(next[counter], schema::DecodeCounter(counter, value));
    return Status();
  });
  for (const auto& [counter, highest] : seen_) {
    const std::string subject = std::string("counter ") + schema::NameOf(counter);
    const auto it = next.find(counter);
    if (it == next.end()) {
      Fault(subject, "is missing, and " + highest.where + " has " + Text(highest.number));
    } else if (it->second <= highest.number) {
      Fault(subject, "goes on at " + Text(it->second) + ", and " + highest.where + " has " +
                         Text(highest.number));
    }
  }
}

void Verifier::LookForUnknownKinds() {
  const std::string known = {schema::kBootPresence, schema::kCounter,     schema::kDurablePresence,
                             schema::kVolumeIndex,  schema::kObjectIndex, schema::kObject,
                             schema::kQuarantine,   schema::kJournal,     schema::kSchemaVersion,
                             schema::kUse,          schema::kVolume,      schema::kChoice};
  const auto look = [&](std::string_view key, std::string_view) {
    if (key.empty() || known.find(key[0]) == std::string::npos) {
      Fault("record " + schema::Quoted(key), "no record kind has this key");
    }
    return true;
  };
  db_->Scan("", look).IgnoreError("the check of the kind that cannot be read on reports it");
}

void Verifier::CheckDataFile(const Known& object) {
  const std::string path = PathOf(object.record.number);
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    Fault(NameOf(object.record), Status::FromErrno(errno, "its file " + path).message());
  } else if (!S_ISREG(info.st_mode)) {
    Fault(NameOf(object.record), path + " is no regular file");
  } else if (const auto found = static_cast<uint64_t>(info.st_size);
             found < object.record.size_bytes ||
             found > std::max(object.record.size_bytes,
                              object.record.verity
                                  ? VerityLayout(object.record.size_bytes).tail_end()
                                  : 0)) {
    Fault(NameOf(object.record), path + " is of " + std::to_string(info.st_size) +
                                     " bytes, the object of " + Text(object.record.size_bytes));
  }
}

// What stands in the data directory without an object: nothing reads it.
void Verifier::NoteDataFile(const std::filesystem::path& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0 || S_ISDIR(info.st_mode)) return;
  const std::string name = path.filename();
  if (name == DataStore::kMark) return;
  const ObjectNumber number{std::strtoull(name.c_str(), nullptr, 10)};
  if (PathOf(number) != path) {
    Note(path, "does not belong to the cache");
    return;
  }
  if (objects_.contains(number.value)) return;
  Note(path, info.st_size == 0
                 ? "is empty and has no object: a crash between making it and recording its object "
                   "leaves that"
                 : "has no object: it was dropped, or its record was damaged or lost");
}

void Verifier::CheckDataDirectory() {
  namespace fs = std::filesystem;
  const fs::path directory = options_.cache_dir + "/data";
  std::error_code error;
  fs::recursive_directory_iterator it(directory, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    NoteDataFile(it->path());
  }
  // A daemon that never came so far has not made it.
  if (error && error != std::errc::no_such_file_or_directory) {
    Fault(directory, "cannot be listed: " + error.message());
  }
}

void Verifier::CompareContent(const VerifyOptions::Content& content) {
  const Known* found = nullptr;
  for (const auto& [number, object] : objects_) {
    const auto volume = volumes_.find(object.record.volume.value);
    if (volume != volumes_.end() && volume->second == content.volume &&
        object.record.cookie == content.cookie && object.indexed) {
      found = &object;
    }
  }
  if (found == nullptr) {
    Fault(content.volume + "/" + content.cookie, "there is no such object to compare");
    return;
  }
  const std::string path = PathOf(found->record.number);
  const Status compared =
      CompareWithFile(path, content.file, found->trusted, &report_.compared_bytes);
  if (!compared.ok()) Fault(NameOf(found->record), compared.message());
}

VerifyReport Verifier::Run() {
  ReadVersion();
  ReadVolumes();
  ReadVolumeIndex();
  ReadObjects();
  ReadObjectIndex();
  ReadPresence();
  ReadJournal();
  ReadUses();
  ReadQuarantine();
  ScanKind(schema::kChoice, [](std::string_view key, std::string_view value) {
    return Status(schema::DecodeChoice(key, value).status());
  });
  LookForUnknownKinds();
  for (const auto& [number, object] : objects_) CheckDataFile(object);
  CheckDataDirectory();
  ReadCounters();
  for (const VerifyOptions::Content& content : options_.contents) CompareContent(content);
  report_.objects = objects_.size();
  std::sort(report_.faults.begin(), report_.faults.end());
  std::sort(report_.notes.begin(), report_.notes.end());
  return std::move(report_);
}

}  // namespace

Result<VerifyReport> VerifyCache(const VerifyOptions& options) {
  ASSIGN_OR_RETURN(std::string boot_id, schema::ParseBootId(options.boot_id));
  ASSIGN_OR_RETURN(std::unique_ptr<RocksDbDatabase> db,
                   RocksDbDatabase::OpenReadOnly(options.cache_dir + "/db"));
  return Verifier(options, std::move(boot_id), std::move(db)).Run();
}

}  // namespace cachecore
