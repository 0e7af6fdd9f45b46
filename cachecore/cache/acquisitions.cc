#include "cachecore/cache/acquisitions.h"

#include <cerrno>
#include <memory>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/values/names.h"

namespace cachecore {
namespace {

// Whether the fetcher must find out if the origin still has what is known.
bool IsDoubtful(const ObjectInfo& known, Freshness freshness) {
  if (freshness == Freshness::kKnown) return false;
  if (known.stale) return true;
  // A digest is more exact than any validator.
  return known.facts && !known.facts->has_validator && !known.verity;
}

}  // namespace

Acquisitions::Acquisitions(Duration timeout, IdReserve* ids, GuardedEngine* core,
                           Catalogue* catalogue)
    : timeout_(timeout), ids_(ids), core_(core), catalogue_(catalogue) {}

// What is known of an object by name, if anything.
Result<std::optional<ObjectInfo>> Acquisitions::FindKnown(const VolumeRecord& volume,
                                                          const std::string& cookie) {
  ASSIGN_OR_RETURN(const std::optional<ObjectNumber> number,
                   catalogue_->FindByName(volume, cookie));
  if (!number) return std::optional<ObjectInfo>();
  MutexLock lock(&core_->mu);
  const Object* object = core_->engine.Find(*number);
  if (object == nullptr || !object->size_known) return std::optional<ObjectInfo>();
  return std::optional(InfoOf(*object));
}

std::optional<AcquireTicket> Acquisitions::Acquire(const VolumeRecord& volume,
                                                   const std::string& cookie, Duration timeout,
                                                   Freshness freshness, InfoDone done) {
  if (!IsLegalCookie(cookie)) {
    done(Status(ENOENT, "\"" + cookie + "\" cannot be an object's name: 1 to 252 bytes"));
    return std::nullopt;
  }
  if (timeout == Duration::zero()) timeout = timeout_;
  GuardedEngine::Work work;
  Result<std::optional<ObjectInfo>> known(std::optional<ObjectInfo>{});
  std::optional<AcquireTicket> ticket;
  Status ids = ids_->EnsureIds();
  if (ids.ok()) ids = ids_->EnsureNumbers();
  {
    // Held to the end: two look-ups of one name must not make two objects.
    MutexLock load_lock(&catalogue_->load_mu);
    catalogue_->MakeRoom();
    known = FindKnown(volume, cookie);
    Transaction transaction(core_, &work);
    Object* successor = nullptr;
    // Without a fetcher that can ask, what is known serves.
    if (known.ok() && known->has_value() && ids.ok() && !core_->engine.is_refusing() &&
        IsDoubtful(**known, freshness)) {
      successor = FindOrMakeSuccessor(**known, freshness == Freshness::kReplace);
    }
    if (successor != nullptr) {
      const ObjectInfo old = **known;
      // Where the origin does not answer, what is known is used; that must be within the timeout.
      const uint64_t serial = core_->engine.Acquire(
          successor, core_->engine.DeadlineAfter(old.stale ? timeout : timeout / 2),
          [this, done, old, opened = successor->number](const Status& ended) {
            if (ended.ok()) return done(catalogue_->Stat(opened));
            if (old.stale && ended.error() != EALREADY) return done(ended);
            done(catalogue_->Stat(old.number));
          },
          transaction.effects());
      ticket = AcquireTicket{successor->number, serial};
    }
    if (known.ok() && !known->has_value() && core_->engine.is_refusing()) {
      known = Status(EIO, "no fetcher is attached and the detach policy is `fail`");
    }
    if (known.ok() && !known->has_value() && !ids.ok()) known = ids;
    // As in the kernel, each first use of an object begins with an OPEN.
    const bool asks_again = core_->engine.has_kernel_instances() &&
                            freshness != Freshness::kKnown && ids.ok() &&
                            !core_->engine.is_refusing() && successor == nullptr;
    if (known.ok() && (!known->has_value() || asks_again)) {
      Object* object = known->has_value() ? core_->engine.Find((*known)->number)
                                          : FindOrMakeUnknown(volume, cookie);
      if (object != nullptr && object->size_known && (!asks_again || object->live_id)) {
        known = std::optional(InfoOf(*object));  // It is open, or was answered after FindKnown.
      } else if (object != nullptr) {
        const uint64_t serial = core_->engine.Acquire(
            object, core_->engine.DeadlineAfter(timeout),
            [this, done, opened = object->number](const Status& ended) {
              done(ended.ok() ? catalogue_->Stat(opened) : Result<ObjectInfo>(ended));
            },
            transaction.effects());
        ticket = AcquireTicket{object->number, serial};
      }
    }
  }
  core_->Run(std::move(work));
  if (!ticket) done(known.ok() ? Result<ObjectInfo>(**known) : Result<ObjectInfo>(known.status()));
  return ticket;
}

Result<std::optional<ObjectInfo>> Acquisitions::Find(const std::string& volume,
                                                     const std::string& cookie) {
  ASSIGN_OR_RETURN(const std::optional<VolumeRecord> known, catalogue_->FindVolume(volume));
  if (!known) return std::optional<ObjectInfo>();
  MutexLock load_lock(&catalogue_->load_mu);
  return FindKnown(*known, cookie);
}

bool Acquisitions::Close(const std::string& volume, const std::string& cookie) {
  const Result<std::optional<VolumeRecord>> known = catalogue_->FindVolume(volume);
  if (!known.ok() || !known->has_value()) return true;
  if (const Status ids = ids_->EnsureIds(); !ids.ok()) {
    LOG(ERROR) << volume << "/" << cookie << " stays open without a use: " << ids.message();
    return true;
  }
  Transaction transaction(core_);
  const std::optional<ObjectNumber> number = core_->names.Find((*known)->number, cookie);
  Object* object = number ? core_->engine.Find(*number) : nullptr;
  if (object == nullptr || !object->waiting.empty() || !object->acquires.empty()) return true;
  // A reader is served as soon as its bytes are there, before the fetcher has said so.
  if (!object->in_flight.empty()) return false;
  core_->engine.EndInstance(object, /*tell=*/true, transaction.effects());
  return true;
}

bool Acquisitions::Withdraw(const AcquireTicket& ticket, const Status& why) {
  Transaction transaction(core_);
  return core_->engine.WithdrawAcquire(ticket.object, ticket.serial, why, transaction.effects());
}

// An object of which nothing is known but an OPEN on its way.
Object* Acquisitions::FindOrMakeUnknown(const VolumeRecord& volume, const std::string& cookie) {
  if (const auto number = core_->names.Find(volume.number, cookie)) {
    if (Object* object = core_->engine.Find(*number); object != nullptr) return object;
  }
  auto fresh = std::make_unique<Object>();
  fresh->number = ids_->TakeNumber();
  fresh->volume = volume.number;
  fresh->volume_key = volume.key;
  fresh->cookie_key = cookie;
  fresh->used = core_->engine.tick();
  core_->names.Set(volume.number, cookie, fresh->number);
  return core_->engine.AddObject(std::move(fresh));
}

// Null when the old one has left memory since: then it is used as it is.
Object* Acquisitions::FindOrMakeSuccessor(const ObjectInfo& known, bool may_replace) {
  if (const auto number = core_->names.FindSuccessor(known.number)) {
    if (Object* object = core_->engine.Find(*number); object != nullptr) {
      // A mount that still waits for its OPEN decides too.
      object->may_replace = may_replace && (object->acquires.empty() || object->may_replace);
      return object;
    }
  }
  const Object* old = core_->engine.Find(known.number);
  if (old == nullptr) return nullptr;
  auto fresh = std::make_unique<Object>();
  fresh->number = ids_->TakeNumber();
  fresh->volume = old->volume;
  fresh->volume_key = old->volume_key;
  fresh->cookie_key = old->cookie_key;
  fresh->attr = old->attr;
  fresh->succeeds = old->number;
  fresh->may_replace = may_replace;
  fresh->used = core_->engine.tick();
  core_->names.SetSuccessor(known.number, fresh->number);
  return core_->engine.AddObject(std::move(fresh));
}

// The old one goes before the successor's record has the same name: after a death in between
// nothing is known of either, and no file is left without a record.
Status Acquisitions::Succeed(const ObjectRecord& successor, wire::CopenCommand* command) {
  ObjectNumber number;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(successor.number);
    if (object == nullptr || !object->succeeds) return Status();
    number = *object->succeeds;
  }
  MutexLock load_lock(&catalogue_->load_mu);
  ASSIGN_OR_RETURN(const std::optional<ObjectNumber> named,
                   catalogue_->FindByName({successor.volume, ""}, successor.cookie));
  // The old one was lost, and another has been opened under its name.
  if (named && *named != number) return Status(ESTALE, "was opened anew meanwhile");
  if (named) {
    ASSIGN_OR_RETURN(const bool dropped, DropForSuccessor(number, successor));
    if (!dropped) command->error = EALREADY;
    if (!dropped) return Status();
  }
  MutexLock lock(&core_->mu);
  core_->names.Set(successor.volume, successor.cookie, successor.number);
  return Status();
}

// False when the old one stays, since it is the same or a mount uses it.
Result<bool> Acquisitions::DropForSuccessor(ObjectNumber number, const ObjectRecord& successor) {
  bool drops;
  {
    Transaction transaction(core_);
    const Object* object = core_->engine.Find(successor.number);
    Object* old = core_->engine.Find(number);
    if (object == nullptr || old == nullptr) return false;
    // A fetcher that sends no attr has found that the old attr holds.  A fetcher that does not
    // check the attr sends no facts either.
    const bool is_same = old->size_bytes == successor.size_bytes && old->attr == successor.attr &&
                         successor.facts.has_value();
    // No acquisition may wait for the answer any more, and a mount may use the old one again.
    drops = !is_same && object->may_replace && !object->acquires.empty();
    if (!drops) core_->engine.SetStale(old, !is_same, transaction.effects());
    if (is_same && old->facts != successor.facts) {
      old->facts = successor.facts;
      transaction.effects()->changed.push_back(number);
    }
  }
  if (!drops) return false;
  FaultPoint(Fault::kSuccessorOpen);
  RETURN_IF_ERROR(catalogue_->DropObject(number, "changed at its origin"));
  FaultPoint(Fault::kPredecessorDropped);
  return true;
}

}  // namespace cachecore
