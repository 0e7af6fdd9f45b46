// Acquisitions: find an object by name, and ask the fetcher what is not known of it.
//
// Model    a known object is the answer at once.  For an unknown name the fetcher gets an OPEN,
//          which every acquisition of that name waits for.  For a known object that its origin may
//          have replaced, a successor gets an OPEN: where that finds the same version the known
//          object stays, and where it finds another one the successor takes its name.
// Errors   Status with the errno that the reader or the command gets.
// Threads  thread-safe.  A callback runs on the thread that completes it, and may run before
//          Acquire returns.
// Owns     nothing; the parts that it is given outlive it.
// Crash    the old object's file and record go before the successor's record has the same name: a
//          daemon that dies in between leaves neither, and no file without a record.
// See      docs/semantics.md "Objects".

#ifndef CACHECORE_CACHE_ACQUISITIONS_H_
#define CACHECORE_CACHE_ACQUISITIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "cachecore/cache/catalogue.h"
#include "cachecore/cache/guarded_engine.h"
#include "cachecore/cache/id_reserve.h"
#include "cachecore/cache/object_info.h"
#include "cachecore/protocol/wire.h"
#include "cachecore/store/metadata_store.h"

namespace cachecore {

// How much of a known object an acquisition believes.
enum class Freshness {
  kKnown,    // All.
  kAsk,      // The fetcher is asked where no validator tells versions apart or it has changed.
  kReplace,  // The same, and another version takes its place: the caller knows that no mount uses
             // the old one.
};

struct AcquireTicket {
  ObjectNumber object;
  uint64_t serial = 0;
};

using InfoDone = std::function<void(const Result<ObjectInfo>&)>;

class Acquisitions {
 public:
  // `timeout`: of an acquisition that has none of its own.
  Acquisitions(Duration timeout, IdReserve* ids, GuardedEngine* core, Catalogue* catalogue);

  // `timeout` zero is that of the constructor.  Nullopt when `done` was called already.
  std::optional<AcquireTicket> Acquire(const VolumeRecord& volume, const std::string& cookie,
                                       Duration timeout, Freshness freshness, InfoDone done)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // Ends an acquisition with `why`; false when it has ended.
  bool Withdraw(const AcquireTicket& ticket, const Status& why) EXCLUDES(core_->mu);

  // What is known of an object, without asking the fetcher.
  Result<std::optional<ObjectInfo>> Find(const std::string& volume, const std::string& cookie)
      EXCLUDES(core_->mu, catalogue_->load_mu);
  // No mount uses the object any more: the fetcher gets its CLOSE, unless something waits for the
  // object.  False while the fetcher is to answer READs of it: then try again.
  bool Close(const std::string& volume, const std::string& cookie) EXCLUDES(core_->mu);

  // A successor's OPEN is answered with `command`: the object in whose place it comes is dropped,
  // or stays, and then the OPEN is refused.
  Status Succeed(const ObjectRecord& successor, wire::CopenCommand* command)
      EXCLUDES(core_->mu, catalogue_->load_mu);

 private:
  Result<std::optional<ObjectInfo>> FindKnown(const VolumeRecord& volume, const std::string& cookie)
      REQUIRES(catalogue_->load_mu) EXCLUDES(core_->mu);
  // An object whose OPEN finds out whether its origin still has `known`.
  Object* FindOrMakeSuccessor(const ObjectInfo& known, bool may_replace) REQUIRES(core_->mu);
  Object* FindOrMakeUnknown(const VolumeRecord& volume, const std::string& cookie)
      REQUIRES(core_->mu);
  Result<bool> DropForSuccessor(ObjectNumber number, const ObjectRecord& successor)
      REQUIRES(catalogue_->load_mu) EXCLUDES(core_->mu);

  const Duration timeout_;
  IdReserve* const ids_;
  GuardedEngine* const core_;
  Catalogue* const catalogue_;
};

}  // namespace cachecore

#endif  // CACHECORE_CACHE_ACQUISITIONS_H_
