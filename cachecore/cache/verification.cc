#include "cachecore/cache/verification.h"

#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <memory>
#include <utility>

#include "cachecore/engine/verified_reader.h"
#include "cachecore/logging/log_fields.h"

namespace cachecore {
namespace {

// What is read at a time; a wrong tree block costs the blocks of one such step.
constexpr uint64_t kStep = 128 << 10;

Status Stopping() { return Status(ECANCELED, "the daemon is stopping; try again"); }

Status ReadAll(const UniqueFd& file, uint64_t offset, std::span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t got = pread(file.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(errno, "read");
    if (got == 0) return Status(EIO, "the file ends too early");
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return Status();
}

}  // namespace

Verification::Verification(const Clock& clock, TreeCache* trees, LogLimiter* log,
                           GuardedEngine* core, Catalogue* catalogue, Durability* durability,
                           Reads* reads)
    : clock_(clock),
      trees_(trees),
      log_(log),
      core_(core),
      catalogue_(catalogue),
      durability_(durability),
      reads_(reads) {}

// ---- Reads

Status Verification::ReadChecked(const FileSlice& slice, std::span<uint8_t> buffer) {
  if (slice.range.empty()) return Status();  // Past the end; there may be no file.
  const std::vector<WrongRange> wrong =
      ReadVerified(slice.file->get(), *slice.verity, slice.range, buffer, trees_);
  if (wrong.empty()) return Status();
  durability_->RemoveWrongPresence(*slice.verity, wrong);
  return Status(EAGAIN, "object " + slice.verity->name + ": bytes " +
                            wrong.front().range.ToString() + ": " + wrong.front().why);
}

Status Verification::ReadAssembled(const FileSlice& slice, std::span<uint8_t> out) {
  CHECK_EQ(out.size(), slice.range.size());
  for (uint64_t at = slice.range.begin; at < slice.range.end;) {
    ByteRange piece{at, slice.range.end};
    const UniqueFd* memory = nullptr;
    for (const ThroughPart& part : slice.through) {
      if (part.range.begin <= at && at < part.range.end) {
        memory = part.file.get();
        piece.end = std::min(slice.range.end, part.range.end);
        break;
      }
      if (part.range.begin > at) piece.end = std::min(piece.end, part.range.begin);
    }
    const std::span<uint8_t> target = out.subspan(at - slice.range.begin, piece.size());
    if (memory == nullptr && slice.verity != nullptr) {
      std::vector<uint8_t> blocks(piece.size() + 2 * kVerityBlock);
      RETURN_IF_ERROR(ReadChecked({slice.file, piece, slice.verity, {}}, blocks));
      std::memcpy(target.data(), blocks.data() + at % kVerityBlock, target.size());
    } else {
      RETURN_IF_ERROR(ReadAll(memory != nullptr ? *memory : *slice.file, at, target));
    }
    at = piece.end;
  }
  return Status();
}

// ---- Bytes of the fetcher

bool Verification::IsRight(const ObjectVerity& object, const UniqueFd& file, ByteRange range) {
  std::vector<uint8_t> buffer(range.size() + 2 * kVerityBlock);
  const auto wrong = ReadVerified(file.get(), object, range, buffer, trees_);
  if (wrong.empty()) return true;
  log_->Error("object " + object.name + ": bytes " + wrong.front().range.ToString() +
                  " from the fetcher: " + wrong.front().why + "; refused",
              {LogKind::kWrongBytes, object.name, wrong.front().range});
  return false;
}

// ---- Recheck

Result<RecheckResult> Verification::Recheck(ObjectNumber number, ByteRange window,
                                            Duration patience, const std::stop_token& stop) {
  const Duration deadline = clock_.Now() + patience;
  ASSIGN_OR_RETURN(FileSlice slice, FindSlice(number, window));
  Check check{number, std::move(slice), deadline, stop};
  check.buffer.resize(kStep);
  const uint64_t end = check.slice.range.end;
  for (uint64_t at = check.slice.range.begin; at < end;) {
    if (stop.stop_requested()) return Stopping();
    ASSIGN_OR_RETURN(const ByteRange step, NextPresent(number, at, end));
    if (step.empty()) break;
    at = step.end;
    CheckStep(&check, step);
  }
  check.result.next = end;
  return std::move(check.result);
}

Result<FileSlice> Verification::FindSlice(ObjectNumber number, ByteRange window) {
  while (true) {
    RETURN_IF_ERROR(catalogue_->EnsureLoaded(number));
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr) continue;
    if (object->verity == nullptr) {
      return Status(EOPNOTSUPP, object->volume_key + "/" + object->cookie_key +
                                    " was mounted without --verify: there is no digest to hold "
                                    "its bytes against");
    }
    if (object->file == nullptr) {
      return Status(EROFS, object->volume_key + "/" + object->cookie_key +
                               " has lost its data file, and the disk takes no other: make room");
    }
    return FileSlice{object->file, window.Intersect({0, object->size_bytes}), object->verity};
  }
}

Result<ByteRange> Verification::NextPresent(ObjectNumber number, uint64_t at, uint64_t end) {
  while (true) {
    RETURN_IF_ERROR(catalogue_->EnsureLoaded(number));
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr) continue;
    ByteRange step;
    step.begin = object->presence.FirstPresent({at, end});
    step.end = std::min(object->presence.FirstMissing({step.begin, end}),
                        step.begin - step.begin % kStep + kStep);
    return step;
  }
}

void Verification::CheckStep(Check* check, ByteRange step) {
  RecheckResult& result = check->result;
  const FileSlice& slice = check->slice;
  result.checked_bytes += step.size();
  const auto wrong =
      ReadVerified(slice.file->get(), *slice.verity, step, check->buffer, &check->trees);
  if (wrong.empty()) return;
  durability_->RemoveWrongPresence(*slice.verity, wrong);
  for (const WrongRange& one : wrong) {
    result.wrong_bytes += one.range.size();
    const Status healed = Heal(check, one.range);
    if (healed.ok()) {
      result.healed_bytes += one.range.size();
    } else if (result.error.empty()) {
      result.error = "bytes " + one.range.ToString() + ": " + healed.message();
    }
  }
}

// Waits until the range has been fetched again, and checks it.
Status Verification::Heal(Check* check, ByteRange range) {
  const Duration left = std::max(check->deadline - clock_.Now(), Duration::zero());
  RETURN_IF_ERROR(AwaitRange(check->number, range, left, check->stop));
  const FileSlice& slice = check->slice;
  if (ReadVerified(slice.file->get(), *slice.verity, range, check->buffer, &check->trees).empty()) {
    return Status();
  }
  return Status(EIO, "they were fetched again and are wrong again: the disk?");
}

Status Verification::AwaitRange(ObjectNumber number, ByteRange range, Duration patience,
                                const std::stop_token& stop) {
  const auto ended = std::make_shared<std::promise<Status>>();
  std::future<Status> future = ended->get_future();
  const ReadTicket ticket =
      reads_->Read(number, range,
                   [ended](const Status& status, const FileSlice& slice) {
                     const Status not_kept(ENOSPC, "the data file takes no writes");
                     ended->set_value(slice.through.empty() ? status : not_kept);
                   },
                   /*reader=*/{});
  const std::stop_callback withdraw(stop, [this, &ticket] {
    if (ticket != nullptr) (void)reads_->Withdraw(ticket, Stopping());
  });
  if (future.wait_for(patience) != std::future_status::ready && ticket != nullptr) {
    (void)reads_->Withdraw(ticket, Status(ETIMEDOUT, "they have not come in time"));
  }
  return future.get();
}

}  // namespace cachecore
