#include "fetcher/auth/renewing_authorizer.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace fetcher {

Duration Renewal::Limit(Duration first) const {
  Duration limit = first;
  for (int i = 0; i < timeouts && limit < RenewingAuthorizer::kLongestBringing; ++i) limit *= 2;
  return std::min(limit, std::max(first, RenewingAuthorizer::kLongestBringing));
}

RenewingAuthorizer::~RenewingAuthorizer() {
  if (cancel_) cancel_->Set();
}

void RenewingAuthorizer::StartRenewal() {
  VLOG(1) << "bringing " << what_;
  outcome_ = std::make_shared<Outcome>();
  started_ = clock_.Now();
  auto call = calls_->Start("bringing " + what_, [bring = bring_, renewal = next_,
                                                  outcome = outcome_](const Cancel& cancel) {
    auto result = bring(renewal, cancel);
    const cachecore::MutexLock lock(&outcome->mu);
    outcome->result = std::move(result);
  });
  if (call.ok()) {
    cancel_ = std::move(call).value();
    return;
  }
  outcome_.reset();
  LOG_IF(WARNING, !failure_ || failure_->cause != call.status().message())
      << call.status().message();
  Pause({Failure::Kind::kRetry, EAGAIN, call.status().message(), Duration::zero()});
}

void RenewingAuthorizer::Pause(Failure failure) {
  pause_ = pause_ == Duration::zero() ? kFirstPause : std::min(2 * pause_, kLongestPause);
  not_before_ = clock_.Now() + pause_;
  failure_ = std::move(failure);
}

void RenewingAuthorizer::TakeOutcome() {
  if (!outcome_) return;
  std::optional<cachecore::Result<BroughtCredentials>> result;
  {
    const cachecore::MutexLock lock(&outcome_->mu);
    if (!outcome_->result) return;
    result = std::move(outcome_->result);
  }
  outcome_.reset();
  cancel_.reset();
  next_.timeouts = result->status().error() == ETIMEDOUT ? next_.timeouts + 1 : 0;
  const bool dead = result->ok() && (*result)->lifetime && *(*result)->lifetime <= Duration::zero();
  if (dead || !result->ok()) {
    const std::string why =
        dead ? what_ + " that were brought have expired already" : result->status().message();
    LOG_IF(WARNING, !failure_ || failure_->cause != why) << why;
    // An answer that cannot be understood is no word on the credentials.
    const int error = result->status().error() == EPROTO ? EPROTO : EACCES;
    return Pause({Failure::Kind::kRetry, error, why, Duration::zero()});
  }
  const Duration now = clock_.Now();
  credentials_ = std::make_shared<HttpCredentials>(std::move((*result)->credentials));
  ++serial_;
  accepted_ = false;
  expires_.reset();
  renew_at_.reset();
  if (const auto lifetime = (*result)->lifetime) {
    expires_ = now + *lifetime;
    renew_at_ = *expires_ - std::min(*lifetime / 5, kMostAhead);
  }
  next_.refused = false;
}

HttpAuthorizer::Authorization RenewingAuthorizer::Authorize() {
  TakeOutcome();
  const Duration now = clock_.Now();
  const bool due = !Holds() || (renew_at_ && now >= *renew_at_);
  if (due && !outcome_ && now >= not_before_) StartRenewal();
  if (Holds()) return Granted{credentials_, serial_};
  if (outcome_ && now - started_ < kPatience) return NotYet{};
  Failure failure = failure_
                        ? *failure_
                        : Failure{Failure::Kind::kRetry, EACCES, "still waiting for " + what_, {}};
  failure.retry_after = std::max(not_before_ - now, kFirstPause);
  return failure;
}

void RenewingAuthorizer::OnAccepted(uint64_t serial) {
  if (serial != serial_ || !credentials_) return;
  accepted_ = true;
  refusals_ = 0;
  // Renewing them ahead has failed, or is due: how often that is tried is not up to those in use.
  if (renew_at_ && clock_.Now() >= *renew_at_) return;
  if (clock_.Now() < not_before_) return;
  failure_.reset();
  pause_ = Duration::zero();
}

void RenewingAuthorizer::OnRefused(uint64_t serial, const HttpAnswer& answer,
                                   const Failure& failure) {
  TakeOutcome();
  if (!answer.www_authenticate.empty()) next_.challenge = answer.www_authenticate;
  // There are new ones already, or another request has reported it.
  if (serial != serial_ || !credentials_) return;
  const Duration now = clock_.Now();
  if (accepted_ && refused_at_ && now - *refused_at_ < kSpacing) return;
  refused_at_ = now;
  credentials_.reset();
  next_.refused = true;
  // The first refusal is the usual way to learn that they have expired, or what is asked for.
  if (++refusals_ > 1) Pause({Failure::Kind::kRetry, EACCES, failure.cause, Duration::zero()});
}

}  // namespace fetcher
