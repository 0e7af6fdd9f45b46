#include "cachecore/cache/reads.h"

#include <glog/logging.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cachecore/cache/object_info.h"
#include "cachecore/logging/log_fields.h"

namespace cachecore {
namespace {

// How long the requests of a mount that was unmounted may go on.  A program may also read an object
// that is not mounted.
constexpr Duration kUnwantedAfter = std::chrono::seconds(10);

}  // namespace

Reads::Reads(Duration timeout, const DataStore& data, IdReserve* ids, GuardedEngine* core,
             Catalogue* catalogue)
    : timeout_(timeout), data_(data), ids_(ids), core_(core), catalogue_(catalogue) {}

Result<std::optional<FileSlice>> Reads::TryRead(ObjectNumber number, ByteRange range) {
  Result<std::optional<FileSlice>> slice{std::optional<FileSlice>()};
  ByteRange ahead;
  while (true) {
    {
      MutexLock lock(&core_->mu);
      if (Object* object = core_->engine.Find(number)) {
        object->used = core_->engine.tick();
        if (!object->size_known) return ObjectIsGone(number);
        range = range.Intersect({0, object->size_bytes});
        // A reader that has to wait asks first, read-ahead after it (Read).
        if (!object->presence.Covers(range)) return slice;
        core_->engine.NoteUse(object, range);
        object->NoteRead(range);
        *slice = FileSlice{object->file, range, object->verity};
        if (MayAskAhead(*object)) ahead = core_->engine.AdvanceReadAhead(object, range);
        break;
      }
    }
    RETURN_IF_ERROR(catalogue_->EnsureLoaded(number));
  }
  if (!ahead.empty()) AskAhead(number, ahead);
  return slice;
}

// Without message ids the window stays where it is.
bool Reads::MayAskAhead(const Object& object) const {
  return !core_->engine.is_refusing() && !object.presence.complete() && !ids_->lacks_ids();
}

void Reads::AskAhead(ObjectNumber number, ByteRange ahead) {
  if (!ids_->EnsureIds().ok()) return;  // The readers ask for it when they come to it.
  Transaction transaction(core_);
  Object* object = core_->engine.Find(number);
  if (object != nullptr && !core_->engine.is_refusing()) {
    core_->engine.Prefetch(object, ahead, transaction.effects());
  }
}

Status Reads::CheckMayWait(ObjectNumber number) const {
  if (core_->engine.is_refusing()) {
    return Status(EIO, "no fetcher is attached and the detach policy is `fail`");
  }
  if (refuses_reads_.contains(number)) return Status(EIO, "its mount was taken away by force");
  return Status();
}

ReadTicket Reads::Read(ObjectNumber number, ByteRange range, SliceDone done, Reader reader) {
  Status status = ids_->EnsureIds();
  FileSlice slice;
  ReadTicket ticket;
  while (status.ok()) {
    status = catalogue_->EnsureLoaded(number);
    if (!status.ok()) break;
    Transaction transaction(core_);
    Object* object = core_->engine.Find(number);
    if (object == nullptr) continue;
    if (!object->size_known) {
      status = ObjectIsGone(number);
      break;
    }
    slice = {object->file, range.Intersect({0, object->size_bytes}), object->verity};
    if (object->presence.Covers(slice.range)) break;
    status = CheckMayWait(number);
    if (!status.ok()) break;
    ticket = core_->engine.Read(
        object, slice.range, core_->engine.DeadlineAfter(timeout_),
        // The digest may have become known while the read waited, and the file may be another one.
        [range = slice.range, done](const Status& ended, const ReadBytes& bytes) {
          done(ended, {bytes.file, range, bytes.verity, bytes.through});
        },
        transaction.effects(), std::move(reader));
    const ByteRange ahead = core_->engine.AdvanceReadAhead(object, slice.range);
    core_->engine.Prefetch(object, ahead, transaction.effects());
    break;
  }
  if (ticket != nullptr) return ticket;
  if (!status.ok()) NoteFailedRead();
  done(status, slice);
  return nullptr;
}

bool Reads::Withdraw(const ReadTicket& read, const Status& why) {
  Transaction transaction(core_);
  return core_->engine.Withdraw(read, why, transaction.effects());
}

void Reads::NoteFailedRead() {
  MutexLock lock(&core_->mu);
  core_->engine.NoteFailedRead();
  core_->AddUp();
}

void Reads::NoteUnreadable(ObjectNumber number, const FileSlice& slice) {
  // The kernel made the reply, and does not report where it ended.
  std::vector<char> block(kBlockSize);
  ByteRange lost = slice.range;
  std::string why = "they could not be read a moment ago";
  for (uint64_t at = slice.range.begin; at < slice.range.end; at += block.size()) {
    const ssize_t got =
        pread(slice.file->get(), block.data(), block.size(), static_cast<off_t>(at));
    if (got > 0) continue;
    lost.begin = at;
    why = got < 0 ? std::strerror(errno) : "the file ends before them";
    break;
  }
  MutexLock lock(&core_->mu);
  core_->engine.NoteFailedRead();
  core_->AddUp();
  Object* object = core_->engine.Find(number);
  if (object == nullptr || std::exchange(object->unreadable, true)) return;
  object->last_error = "bytes " + lost.ToString() + " of " + data_.PathOf(number) + ": " + why;
  const std::string name = object->volume_key + "/" + object->cookie_key;
  LOG(ERROR) << LogAbout{LogKind::kLostBytes, name, lost} << "object " << name
             << ": EIO to reads of what its disk has lost: " << object->last_error;
}

void Reads::SetRefusesReads(ObjectNumber number, bool refuses) {
  Transaction transaction(core_);
  if (!refuses) {
    refuses_reads_.erase(number);
    return;
  }
  refuses_reads_.insert(number);
  const Object* object = core_->engine.Find(number);
  while (object != nullptr && !object->waiting.empty()) {
    const ReadTicket read = object->waiting.begin()->second;
    CHECK(core_->engine.Withdraw(read, Status(EIO, "its mount is taken away by force"),
                                 transaction.effects()));
  }
}

void Reads::EndUnwanted(const std::function<bool(const std::string&, const std::string&)>& wanted,
                        const std::function<bool(pid_t)>& is_gone) {
  std::vector<ReadTicket> waiting;
  {
    Transaction transaction(core_);
    std::vector<Object*> unwanted;
    for (const auto& [number, object] : core_->engine.objects()) {
      const bool is_used =
          !object->acquires.empty() || core_->engine.tick() - object->used < kUnwantedAfter;
      if (is_used || wanted(object->volume_key, object->cookie_key)) continue;
      if (object->waiting.empty()) unwanted.push_back(object.get());
      for (const auto& [position, read] : object->waiting) waiting.push_back(read);
    }
    for (Object* object : unwanted) {
      const bool is_known = object->size_known;
      core_->engine.EndBackground(object, transaction.effects());
      if (is_known && object->IsIdle()) core_->engine.Evict(object, transaction.effects());
    }
  }
  // Read-ahead for a process that was killed, which the kernel cannot take back.
  for (const ReadTicket& read : waiting) {
    if (read->reader.thread == 0 || !is_gone(read->reader.thread)) continue;
    (void)Withdraw(read, Status(ECANCELED, "nobody has mounted it, and its reader is gone"));
  }
}

}  // namespace cachecore
