// ObjectOpening: asks origins for the version of an object, and pins what they say.
//
// Model    an origin is probed for size and validator.  Before the object is open its answer gives
//          the size, or is checked against what an earlier OPEN has stored, and, for an object with
//          a digest, against the Merkle tree's root.  Once it is open, probes pin further origins.
//          The OpeningOwner gets the result of a probe; attr and facts go to the daemon.
// Errors   Failure, of one origin.
// Threads  the event loop's.
// Owns     its probes and the transfer of the tree's first part.
// See      docs/protocol.md "What the fetcher does with an origin's answer".

#ifndef FETCHER_ENGINE_OBJECT_OPENING_H_
#define FETCHER_ENGINE_OBJECT_OPENING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/verity/tree_cache.h"
#include "fetcher/client/client.h"
#include "fetcher/engine/object_identity.h"
#include "fetcher/engine/object_piece.h"
#include "fetcher/engine/object_tree.h"
#include "fetcher/engine/origin_set.h"

namespace fetcher {

// Gets the results of an opening.
class OpeningOwner {
 public:
  // The origin has the object and is pinned, or what was stored holds.
  virtual void OnOriginServes(size_t index) = 0;
  virtual void OnOriginFails(size_t index, Failure failure) = 0;
  // The same as OnOriginServes; the object is the one of its digest, with this tree.
  virtual void OnVerified(size_t index, ObjectTree tree) = 0;

 protected:
  ~OpeningOwner() = default;
};

class ObjectOpening final : public TreeOwner {
 public:
  struct Parts {
    OpeningOwner* owner;
    OriginSet* origins;
    ObjectIdentity* identity;
    DeviceClient* client;
    cachecore::TreeCache* trees;
    const cachecore::Clock& clock;
  };
  struct Names {
    ObjectId id;
    uint64_t tree_owner;  // In the TreeCache.
    std::string key;
    std::string merkle_key;
  };

  // All of `parts` outlives this.
  ObjectOpening(const Parts& parts, Names names) : parts_(parts), names_(std::move(names)) {}

  // Asks an origin.  REQUIRES: OriginSet::Pick has chosen it.
  void Start(size_t index);
  // Whether an origin is being asked.
  bool IsBusy() const { return root_ != nullptr || parts_.origins->IsAnyProbing(); }
  // From here on the size is known.
  void Opened() { is_open_ = true; }

 private:
  struct Probe {
    std::unique_ptr<TransferSlot> slot;
    std::unique_ptr<Transfer> transfer;
  };

  void OnProbed(size_t index, ProbeResult result);
  // Takes a version; the failure if it is not the one that is wanted.
  std::optional<Failure> Take(size_t index, const ObjectVersion& version);
  std::optional<Failure> Pin(size_t index, const ObjectVersion& version);
  // What was stored holds, as this version shows.
  void Confirm(const ObjectVersion& version);
  void StartRoot(size_t index, const ObjectVersion& version);
  void OnTreeEnd(std::optional<Failure> failure) override;
  void OnRoot(size_t index, const ObjectVersion& version, std::span<const char> bytes);
  std::string UrlAt(size_t index) const {
    return parts_.origins->at(index)->backend->Describe(names_.key);
  }

  const Parts parts_;
  const Names names_;
  bool is_open_ = false;
  std::map<size_t, Probe> probes_;  // By origin.
  std::unique_ptr<TreePiece> root_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_OBJECT_OPENING_H_
