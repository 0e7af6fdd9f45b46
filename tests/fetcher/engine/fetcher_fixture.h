// FetcherTest: a real Fetcher on a thread between a FakeDaemon and ScriptedOrigins.

#ifndef TESTS_FETCHER_ENGINE_FETCHER_FIXTURE_H_
#define TESTS_FETCHER_ENGINE_FETCHER_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cachecore/base/clock.h"
#include "cachecore/base/unique_fd.h"
#include "fetcher/engine/fetcher.h"
#include "tests/fetcher/engine/fake_daemon.h"
#include "tests/fetcher/origins/scripted_origin.h"

inline std::string RandomBytes(size_t size) {
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class FetcherTest : public testing::Test {
 protected:
  static constexpr uint64_t kMiB = 1 << 20;

  FetcherTest() {
    using std::chrono::milliseconds;
    options_.device = daemon_.path();
    options_.sources_dir = daemon_.dir();
    options_.fetch.retry_first = milliseconds(1);
    options_.fetch.retry_cap = milliseconds(20);
    options_.fetch.confirm_change = milliseconds(20);
    options_.fetch.open_retry_budget = milliseconds(100);
    options_.http.low_speed_time = std::chrono::seconds(1);
    options_.http.first_byte_timeout = std::chrono::seconds(1);
    options_.http.gather_time =
        std::chrono::hours(1);  // One `filled` a piece, however slow we are.
  }

  ~FetcherTest() override {
    if (!thread_.joinable()) return;
    Stop();
    thread_.join();
  }

  // Writes the source of volume "v".
  void SetSource(const std::vector<std::string>& origins, const std::string& more = "") {
    std::ofstream file(daemon_.dir() + "/v.json");
    file << R"({"version":1,"origins":[)";
    for (size_t i = 0; i < origins.size(); ++i) file << (i ? ",\"" : "\"") << origins[i] << '"';
    file << "]" << more << "}";
  }

  // Starts the fetcher; the daemon must still Accept it.
  void Launch() {
    thread_ = std::thread([this] {
      fetcher::Fetcher fetcher(options_, cachecore::Clock::Monotonic(), {});
      ended_ = fetcher.Run(stop_.get());
    });
  }
  void Start() {
    Launch();
    daemon_.Accept();
  }
  void Stop() {
    const uint64_t one = 1;
    ASSERT_EQ(write(stop_.get(), &one, sizeof(one)), ssize_t{sizeof(one)});
  }
  // Waits until Run has returned.
  const cachecore::Status& WaitForEnd() {
    thread_.join();
    return *ended_;
  }

  // Opens object 1 with message 0 and takes the answer.
  void OpenObject(const std::string& cookie = "x") {
    daemon_.Open(0, 1, "v", cookie);
    const auto lines = daemon_.LinesUntil("copen");
    ASSERT_EQ(lines.back(), "copen 0," + std::to_string(body_.size()));
  }

  // Takes lines up to the end of READ `msg` and returns the declared ranges; causes go to *causes.
  std::vector<std::string> FinishRead(const std::string& cread,
                                      std::vector<std::string>* causes = nullptr) {
    std::vector<std::string> filled;
    for (const std::string& line : daemon_.LinesUntil("cread")) {
      if (line.starts_with("cause")) {
        if (causes != nullptr) causes->push_back(line);
      } else {
        filled.push_back(line);
      }
    }
    EXPECT_EQ(filled.back(), cread);
    filled.pop_back();
    return filled;
  }

  FakeDaemon daemon_;
  fetcher::FetcherOptions options_;
  std::string body_ = RandomBytes(256 << 10);
  const cachecore::UniqueFd stop_{eventfd(0, EFD_CLOEXEC)};
  std::optional<cachecore::Status> ended_;
  std::thread thread_;
};

#endif  // TESTS_FETCHER_ENGINE_FETCHER_FIXTURE_H_
