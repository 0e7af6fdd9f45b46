// RenewingAuthorizer: credentials that something slow brings, kept until they expire or are
// refused.
//
// Model    `bring` is called on a thread of its own when there are none, when they have been
//          refused, and shortly before they expire; while it runs, credentials that still hold
//          serve on, and without any, requests wait.  When it fails, it is called again at growing
//          intervals by the transfers that ask; so it is when what it brings is refused time and
//          again.
// Errors   Failure kRetry, EACCES: what bring said; that it takes long; or what the origin refused.
//          EPROTO where bring said so.
// Threads  the event loop's; `bring` on any, so it must share nothing with it.
// Owns     nothing that outlives it but a call of `bring` that is told to end.
// See      http_authorizer.h

#ifndef FETCHER_AUTH_RENEWING_AUTHORIZER_H_
#define FETCHER_AUTH_RENEWING_AUTHORIZER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cachecore/base/clock.h"
#include "cachecore/base/mutex.h"
#include "cachecore/base/status.h"
#include "fetcher/http/http_authorizer.h"
#include "fetcher/transfer/blocking_calls.h"

namespace fetcher {

struct BroughtCredentials {
  HttpCredentials credentials;
  std::optional<Duration> lifetime;  // From now on.  nullopt: until they are refused.
};

// Why credentials are to be brought.
struct Renewal {
  std::string challenge;  // The last WWW-Authenticate that came with a refusal, or "".
  bool refused = false;   // Those before have been refused: none of them from a cache.
  int timeouts = 0;       // How often in a row bringing them has taken too long.

  // The time that it may take now, where the first try has had `first`.
  Duration Limit(Duration first) const;
};

class RenewingAuthorizer : public HttpAuthorizer {
 public:
  using Bring = std::function<cachecore::Result<BroughtCredentials>(const Renewal&, const Cancel&)>;

  static constexpr Duration kPatience = std::chrono::seconds(2);  // Then NotYet becomes a Failure.
  static constexpr Duration kFirstPause = std::chrono::milliseconds(250);
  static constexpr Duration kLongestPause = std::chrono::seconds(8);
  // What a slow program or token service gets in the end.
  static constexpr Duration kLongestBringing = std::chrono::minutes(5);
  static constexpr Duration kMostAhead = std::chrono::minutes(5);
  // Where some requests are refused and others not, there is no more than one renewal in that time.
  static constexpr Duration kSpacing = std::chrono::seconds(2);

  // `what` names them in sentences, as in "the S3 credentials".  The references outlive this.
  RenewingAuthorizer(std::string what, Bring bring, BlockingCalls* calls,
                     const cachecore::Clock& clock)
      : what_(std::move(what)), bring_(std::move(bring)), calls_(calls), clock_(clock) {}
  ~RenewingAuthorizer() override;

  Authorization Authorize() override;
  void OnAccepted(uint64_t serial) override;
  void OnRefused(uint64_t serial, const HttpAnswer& answer, const Failure& failure) override;

 private:
  // What a call of bring leaves for us.
  struct Outcome {
    cachecore::Mutex mu;
    std::optional<cachecore::Result<BroughtCredentials>> result GUARDED_BY(mu);
  };

  void StartRenewal();
  // Takes what bring has left, if it has ended.
  void TakeOutcome();
  void Pause(Failure failure);
  bool Holds() const { return credentials_ && (!expires_ || clock_.Now() < *expires_); }

  const std::string what_;
  const Bring bring_;
  BlockingCalls* const calls_;
  const cachecore::Clock& clock_;

  std::shared_ptr<const HttpCredentials> credentials_;  // Null: none, or refused.
  uint64_t serial_ = 0;
  bool accepted_ = false;               // These.
  int refusals_ = 0;                    // In a row.
  std::optional<Duration> refused_at_;  // When that last led to a renewal.
  std::optional<Duration> renew_at_;
  std::optional<Duration> expires_;
  Renewal next_;

  std::shared_ptr<Outcome> outcome_;  // Not null: bring runs, or has ended unseen.
  std::shared_ptr<Cancel> cancel_;
  Duration started_{0};

  std::optional<Failure> failure_;  // The last one, until credentials are accepted again.
  Duration pause_{0};
  Duration not_before_{0};  // While it is to come there is a failure_.
};

}  // namespace fetcher

#endif  // FETCHER_AUTH_RENEWING_AUTHORIZER_H_
