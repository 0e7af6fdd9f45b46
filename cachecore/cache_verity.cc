// Cache's bytes with a digest: checked when they are read, made absent when they are wrong.

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <utility>

#include "cachecore/cache.h"

namespace cachecore {
namespace {

// What is read at a time; a wrong tree block costs the blocks of one such step.
constexpr uint64_t kStep = 128 << 10;

Status Stopping() { return Status(ECANCELED, "the daemon is stopping; try again"); }

}  // namespace

Status Cache::Unpresent(const ObjectVerity& object, const std::vector<WrongRange>& wrong) {
  MetadataBatch batch;
  for (const WrongRange& one : wrong) {
    LOG(ERROR) << "object " << object.name << ": bytes " << one.range.ToString()
               << " in the cache: " << one.why << "; they are fetched again";
    batch.remove_presence.push_back({object.number, one.range, Presence::kDurable});
  }
  // The record first: while memory says present, nobody fetches and declares them anew.
  MutexLock durable_lock(&durable_mu_);  // What is on its way to the disk must not add them again.
  const Status recorded = store_->Commit(batch, cachecore::Sync::kYes);
  LOG_IF(ERROR, !recorded.ok()) << "that cannot be recorded, and is found again after a restart: "
                                << recorded.message();
  MutexLock lock(&mu_);
  Object* known = engine_.Find(object.number);
  if (known == nullptr) return Status();  // It comes back as its records say.
  for (const WrongRange& one : wrong) engine_.Unfill(known, one.range);
  return Status();
}

Status Cache::ReadChecked(const FileSlice& slice, std::span<uint8_t> buffer) {
  const std::vector<WrongRange> wrong =
      ReadVerified(slice.file->get(), *slice.verity, slice.range, buffer, &trees_);
  if (wrong.empty()) return Status();
  RETURN_IF_ERROR(Unpresent(*slice.verity, wrong));
  return Status(EAGAIN, "object " + slice.verity->name + ": bytes " +
                            wrong.front().range.ToString() + ": " + wrong.front().why);
}

Status Cache::AwaitRange(ObjectNumber number, ByteRange range, Duration patience,
                         const std::stop_token& stop) {
  const auto ended = std::make_shared<std::promise<Status>>();
  std::future<Status> future = ended->get_future();
  const ReadTicket ticket = Read(
      number, range, [ended](const Status& status, const FileSlice&) { ended->set_value(status); });
  const std::stop_callback let_go(stop, [this, &ticket] {
    if (ticket != nullptr) (void)Withdraw(WaitTicket(ticket), Stopping());
  });
  if (future.wait_for(patience) != std::future_status::ready && ticket != nullptr) {
    (void)Withdraw(WaitTicket(ticket), Status(ETIMEDOUT, "they have not come in time"));
  }
  return future.get();
}

Result<RecheckResult> Cache::Recheck(ObjectNumber number, ByteRange window, Duration patience,
                                     const std::stop_token& stop) {
  const Duration deadline = clock_.Now() + patience;
  FileSlice slice;
  while (slice.file == nullptr) {
    RETURN_IF_ERROR(EnsureLoaded(number));
    MutexLock lock(&mu_);
    const Object* object = engine_.Find(number);
    if (object == nullptr) continue;
    if (object->verity == nullptr) {
      return Status(EOPNOTSUPP, object->volume_key + "/" + object->cookie_key +
                                    " was mounted without --verify: there is no digest to hold "
                                    "its bytes against");
    }
    slice = {object->file, window.Intersect({0, object->size_bytes}), object->verity};
  }
  RecheckResult result;
  std::vector<uint8_t> buffer(kStep);
  TreeCache trees(kCheckedTreeBlocks);  // Nothing that was read before counts.
  for (uint64_t at = slice.range.begin; at < slice.range.end;) {
    if (stop.stop_requested()) return Stopping();
    ByteRange step;
    while (true) {
      RETURN_IF_ERROR(EnsureLoaded(number));
      MutexLock lock(&mu_);
      const Object* object = engine_.Find(number);
      if (object == nullptr) continue;
      step.begin = object->presence.FirstPresent({at, slice.range.end});
      step.end = std::min(object->presence.FirstMissing({step.begin, slice.range.end}),
                          step.begin - step.begin % kStep + kStep);
      break;
    }
    if (step.empty()) break;
    at = step.end;
    result.checked_bytes += step.size();
    const auto wrong = ReadVerified(slice.file->get(), *slice.verity, step, buffer, &trees);
    if (wrong.empty()) continue;
    RETURN_IF_ERROR(Unpresent(*slice.verity, wrong));
    for (const WrongRange& one : wrong) {
      result.wrong_bytes += one.range.size();
      const Duration left = std::max(deadline - clock_.Now(), Duration::zero());
      Status healed = AwaitRange(number, one.range, left, stop);
      if (healed.ok() &&
          !ReadVerified(slice.file->get(), *slice.verity, one.range, buffer, &trees).empty()) {
        healed = Status(EIO, "they were fetched again and are wrong again: the disk?");
      }
      if (healed.ok()) {
        result.healed_bytes += one.range.size();
      } else if (result.error.empty()) {
        result.error = "bytes " + one.range.ToString() + ": " + healed.message();
      }
    }
  }
  result.next = slice.range.end;
  return result;
}

}  // namespace cachecore
