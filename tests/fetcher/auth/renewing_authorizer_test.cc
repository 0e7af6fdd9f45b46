#include "fetcher/auth/renewing_authorizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "tests/cachecore/base/no_threads.h"

namespace fetcher {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class HandClock : public cachecore::Clock {
 public:
  Duration Now() const override { return now_; }
  void Pass(Duration time) { now_ += time; }

 private:
  Duration now_ = seconds(1000);
};

// Each renewal takes the next of `results`, when the test lets it.
class RenewingAuthorizerTest : public testing::Test {
 protected:
  using Granted = HttpAuthorizer::Granted;
  using NotYet = HttpAuthorizer::NotYet;

  RenewingAuthorizerTest() : calls_([this] { returned_.fetch_add(1); }) {
    authorizer_ = std::make_unique<RenewingAuthorizer>(
        "the test's credentials",
        [this](const Renewal& renewal, const Cancel& cancel) { return Bring(renewal, cancel); },
        &calls_, clock_);
  }

  cachecore::Result<BroughtCredentials> Bring(const Renewal& renewal, const Cancel& cancel) {
    const cachecore::MutexLock lock(&mu_);
    renewals_.push_back(renewal);
    if (hang_) {
      pollfd cancelled = {cancel.fd(), POLLIN, 0};
      poll(&cancelled, 1, 30'000);
      return cachecore::Status(EINTR, "cancelled");
    }
    if (error_) return cachecore::Status(error_number_, *error_);
    BroughtCredentials brought;
    brought.credentials.headers = {"Authorization: Bearer " + std::to_string(renewals_.size())};
    brought.lifetime = lifetime_;
    return brought;
  }

  // Authorize, and if that starts a renewal, its end.
  HttpAuthorizer::Authorization Ask() {
    auto authorization = authorizer_->Authorize();
    if (!std::holds_alternative<NotYet>(authorization)) return authorization;
    AwaitReturn();
    return authorizer_->Authorize();
  }
  size_t Renewals() {
    const cachecore::MutexLock lock(&mu_);
    return renewals_.size();
  }
  void AwaitReturn() {
    ++awaited_;
    for (int i = 0; i < 30'000 && returned_ < awaited_; ++i) poll(nullptr, 0, 1);
    ASSERT_GE(returned_, awaited_);
  }
  static std::string Header(const HttpAuthorizer::Authorization& authorization) {
    const auto* granted = std::get_if<Granted>(&authorization);
    return granted == nullptr ? "nothing" : granted->credentials->headers.at(0);
  }
  static Failure FailureOf(const HttpAuthorizer::Authorization& authorization) {
    const auto* failure = std::get_if<Failure>(&authorization);
    return failure == nullptr ? Failure{Failure::Kind::kLocal, 0, "none", {}} : *failure;
  }
  void Refuse(const HttpAuthorizer::Authorization& authorization,
              const std::string& challenge = "") {
    HttpAnswer answer;
    answer.status = 401;
    answer.www_authenticate = challenge;
    authorizer_->OnRefused(std::get<Granted>(authorization).serial, answer,
                           {Failure::Kind::kRetry, EACCES, "401 Unauthorized", {}});
  }

  HandClock clock_;
  cachecore::Mutex mu_;
  std::vector<Renewal> renewals_;
  std::optional<std::string> error_;
  int error_number_ = EACCES;
  std::optional<Duration> lifetime_;
  bool hang_ = false;
  std::atomic<int> returned_ = 0;
  int awaited_ = 0;
  BlockingCalls calls_;
  std::unique_ptr<RenewingAuthorizer> authorizer_;
};

TEST_F(RenewingAuthorizerTest, WithoutAThreadItIsTriedAgain) {
  {
    const cachecore::NoThreads none;
    const Failure failure = FailureOf(authorizer_->Authorize());
    EXPECT_EQ(failure.error, EAGAIN);
    EXPECT_THAT(failure.cause, HasSubstr("TasksMax"));
  }
  clock_.Pass(seconds(10));
  EXPECT_EQ(Header(Ask()), "Authorization: Bearer 1");
}

TEST_F(RenewingAuthorizerTest, RequestsWaitUntilTheFirstCredentialsHaveBeenBrought) {
  EXPECT_TRUE(std::holds_alternative<NotYet>(authorizer_->Authorize()));
  AwaitReturn();
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
  EXPECT_EQ(renewals_.size(), 1u);
}

TEST_F(RenewingAuthorizerTest, TheyAreRenewedBeforeTheyExpireAndServeMeanwhile) {
  lifetime_ = seconds(100);
  EXPECT_EQ(Header(Ask()), "Authorization: Bearer 1");
  clock_.Pass(seconds(79));
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
  EXPECT_EQ(renewals_.size(), 1u);
  clock_.Pass(seconds(2));
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
  AwaitReturn();
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 2");
}

TEST_F(RenewingAuthorizerTest, ExpiredOnesAreNotUsedEvenIfNoOthersCanBeBrought) {
  lifetime_ = seconds(100);
  Ask();
  error_ = "the program ended with status 1";
  clock_.Pass(seconds(90));
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
  AwaitReturn();
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
  clock_.Pass(seconds(11));
  const Failure failure = FailureOf(Ask());
  EXPECT_EQ(failure.kind, Failure::Kind::kRetry);
  EXPECT_EQ(failure.error, EACCES);
  EXPECT_EQ(failure.cause, "the program ended with status 1");
}

TEST_F(RenewingAuthorizerTest, AnAnswerThatCannotBeUnderstoodKeepsItsErrno) {
  error_ = "answers with a bad token";
  error_number_ = EPROTO;
  EXPECT_EQ(FailureOf(Ask()).error, EPROTO);
  EXPECT_EQ(FailureOf(authorizer_->Authorize()).cause, "answers with a bad token");
  error_number_ = ENOENT;
  clock_.Pass(seconds(60));
  EXPECT_EQ(FailureOf(Ask()).error, EACCES);
}

TEST_F(RenewingAuthorizerTest, RenewingAheadInVainIsTriedEverMoreRarelyUnderLoad) {
  lifetime_ = seconds(1000);
  const auto serial = std::get<Granted>(Ask()).serial;
  error_ = "the program ended with status 1";
  clock_.Pass(seconds(810));
  for (int i = 0; i < 60; ++i) {  // A minute of requests.
    EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
    poll(nullptr, 0, 10);  // If that has started a renewal it is mostly over by now.
    EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 1");
    authorizer_->OnAccepted(serial);
    clock_.Pass(seconds(1));
  }
  EXPECT_GE(Renewals(), 2u);
  EXPECT_LE(Renewals(), 20u);
}

TEST_F(RenewingAuthorizerTest, OneThatTakesTooLongGetsMoreTimeWithEachTry) {
  error_ = "too slow";
  error_number_ = ETIMEDOUT;
  for (int i = 0; i < 3; ++i) {
    const Failure failure = FailureOf(Ask());
    EXPECT_EQ(renewals_.back().Limit(seconds(20)), seconds(20) * (1 << i));
    clock_.Pass(failure.retry_after);
  }
  error_.reset();
  Refuse(Ask());
  Ask();
  EXPECT_EQ(renewals_.back().Limit(seconds(20)), seconds(20));
  EXPECT_EQ((Renewal{"", false, 30}.Limit(seconds(20))), RenewingAuthorizer::kLongestBringing);
}

TEST_F(RenewingAuthorizerTest, ARefusalRenewsThemAtOnceAndHandsTheChallengeOn) {
  const auto first = Ask();
  authorizer_->OnAccepted(std::get<Granted>(first).serial);
  clock_.Pass(seconds(60));
  Refuse(first, "Bearer realm=\"r\"");
  EXPECT_EQ(Header(Ask()), "Authorization: Bearer 2");
  ASSERT_EQ(renewals_.size(), 2u);
  EXPECT_EQ(renewals_[1].challenge, "Bearer realm=\"r\"");
  EXPECT_TRUE(renewals_[1].refused);
  Refuse(first);  // A request that was under way all the time.
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 2");
}

TEST_F(RenewingAuthorizerTest, OnesThatAreRefusedTimeAndAgainAreNotBroughtInALoop) {
  Refuse(Ask());
  Refuse(Ask());  // The second time in a row.
  const auto none = authorizer_->Authorize();
  EXPECT_EQ(FailureOf(none).cause, "401 Unauthorized");
  EXPECT_GE(FailureOf(none).retry_after, RenewingAuthorizer::kFirstPause);
  EXPECT_EQ(renewals_.size(), 2u);
  clock_.Pass(RenewingAuthorizer::kFirstPause);
  EXPECT_EQ(Header(Ask()), "Authorization: Bearer 3");
}

TEST_F(RenewingAuthorizerTest, OneObjectThatIsRefusedAllTheTimeDoesNotRenewThemAllTheTime) {
  const auto accept = [this](const HttpAuthorizer::Authorization& authorization) {
    authorizer_->OnAccepted(std::get<Granted>(authorization).serial);
    return authorization;
  };
  Refuse(accept(Ask()));
  const auto second = accept(Ask());
  EXPECT_EQ(Header(second), "Authorization: Bearer 2");
  Refuse(second);
  EXPECT_EQ(Header(authorizer_->Authorize()), "Authorization: Bearer 2");
  clock_.Pass(RenewingAuthorizer::kSpacing);
  Refuse(second);
  EXPECT_EQ(Header(Ask()), "Authorization: Bearer 3");
}

TEST_F(RenewingAuthorizerTest, TheBringerIsAskedAgainAtGrowingIntervals) {
  error_ = "no such file";
  Duration last{0};
  for (int i = 0; i < 4; ++i) {
    const Failure failure = FailureOf(Ask());
    EXPECT_EQ(failure.cause, "no such file");
    EXPECT_GT(failure.retry_after, last);
    EXPECT_EQ(FailureOf(authorizer_->Authorize()).cause, "no such file");
    EXPECT_EQ(renewals_.size(), static_cast<size_t>(i) + 1);
    last = failure.retry_after;
    clock_.Pass(last);
  }
  error_.reset();
  EXPECT_EQ(Header(Ask()), "Authorization: Bearer 5");
}

TEST_F(RenewingAuthorizerTest, OnesThatHaveExpiredAlreadyAreNoCredentials) {
  lifetime_ = seconds(-1);
  EXPECT_THAT(FailureOf(Ask()).cause, HasSubstr("have expired already"));
}

TEST_F(RenewingAuthorizerTest, OneThatHangsIsSaidAfterAWhileAndEndedWithTheAuthorizer) {
  hang_ = true;
  EXPECT_TRUE(std::holds_alternative<NotYet>(authorizer_->Authorize()));
  clock_.Pass(RenewingAuthorizer::kPatience);
  EXPECT_EQ(FailureOf(authorizer_->Authorize()).cause, "still waiting for the test's credentials");
  authorizer_.reset();
  AwaitReturn();
}

}  // namespace
}  // namespace fetcher
