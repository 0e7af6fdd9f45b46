// ObjectIdentity: what one object is known by: its size, its version at each origin, its digest.
//
// Model    an origin is pinned by the version (validator) that it had when it was asked first, and
//          must serve that one from then on.  An object with a digest, its own or its origin's, is
//          the same whatever an origin says.  What an earlier OPEN has stored is checked before it
//          counts if the daemon asks for that.  Pure: nothing is sent or fetched here.
// Errors   Failure: kChanged for another version, kRefused for a pin that cannot be stored.
// Threads  the event loop's.
// See      fetcher/transfer/object_attr.h for the text that the daemon stores.

#ifndef FETCHER_ENGINE_OBJECT_IDENTITY_H_
#define FETCHER_ENGINE_OBJECT_IDENTITY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "cachecore/values/object_facts.h"
#include "cachecore/verity/verity_tree.h"
#include "fetcher/transfer/backend.h"
#include "fetcher/transfer/object_attr.h"

namespace fetcher {

class ObjectIdentity {
 public:
  explicit ObjectIdentity(const std::optional<cachecore::Digest>& verity) : verity_(verity) {}

  // What an earlier OPEN has stored, which counts.
  void Take(ObjectAttr attr) { attr_ = std::move(attr); }
  // The same, which an origin must confirm first.
  void TakeUnchecked(ObjectAttr attr) { known_ = std::move(attr); }
  // Whether something stored waits to be confirmed.
  bool is_unchecked() const { return known_.has_value(); }
  // The stored size.  REQUIRES: is_unchecked().
  uint64_t unchecked_size() const { return known_->size_bytes; }
  // How a version at the origin of that pin name differs from what is to be confirmed.  `url`
  // begins the failure's sentence.  REQUIRES: is_unchecked().
  std::optional<Failure> DiffersFromUnchecked(const std::string& origin, const std::string& url,
                                              const ObjectVersion& version) const;
  // It is confirmed, or it is another object's.  REQUIRES: is_unchecked().
  void Confirm();
  void ForgetUnchecked() { known_.reset(); }

  uint64_t size_bytes() const { return attr_.size_bytes; }
  const std::optional<cachecore::Digest>& verity() const { return verity_; }
  bool IsPinned(const std::string& origin) const { return attr_.pins.count(origin) > 0; }
  // Its bytes are known by a digest, so that nothing an origin says can make it another object.
  bool IsNamedByDigest() const;
  // What that origin must still have.  REQUIRES: IsPinned(origin), or a digest.
  ObjectVersion VersionAt(const std::string& origin) const;
  // Pins an origin, and forgets the pins of those that `is_used` denies.  Returns the text to
  // store.  `is_open`: the size is known.
  std::variant<std::string, Failure> PinOrigin(
      const std::string& origin, const std::string& url, const ObjectVersion& version, bool is_open,
      const std::function<bool(const std::string& origin)>& is_used);
  cachecore::ObjectFacts FactsOf(const ObjectVersion& version) const;

 private:
  const std::optional<cachecore::Digest> verity_;
  ObjectAttr attr_;
  std::optional<ObjectAttr> known_;
};

}  // namespace fetcher

#endif  // FETCHER_ENGINE_OBJECT_IDENTITY_H_
