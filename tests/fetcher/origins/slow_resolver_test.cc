// A name server that does not answer, played by a getaddrinfo of the test's own.

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>

#include "cachecore/base/clock.h"
#include "fetcher/http/http_call.h"
#include "fetcher/origins/http_backend.h"

namespace {

struct Resolver {
  std::mutex mu;
  std::condition_variable changed;
  int asked = 0;
  bool answers = false;
};

Resolver& TheResolver() {
  static Resolver& resolver = *new Resolver;  // Threads of libcurl outlive main.
  return resolver;
}

}  // namespace

// libcurl finds this one before the C library's.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** result) {
  if (node != nullptr && std::strcmp(node, "slow.test") == 0) {
    Resolver& resolver = TheResolver();
    std::unique_lock<std::mutex> lock(resolver.mu);
    ++resolver.asked;
    resolver.changed.notify_all();
    resolver.changed.wait(lock, [&] { return resolver.answers; });
    return EAI_AGAIN;
  }
  using Function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return real(node, service, hints, result);
}

namespace fetcher {
namespace {

class SlowResolverTest : public testing::Test {
 protected:
  ~SlowResolverTest() override { Answer(); }

  static void Answer() {
    Resolver& resolver = TheResolver();
    const std::lock_guard<std::mutex> lock(resolver.mu);
    resolver.answers = true;
    resolver.changed.notify_all();
  }
  static bool IsAsked() {
    const std::lock_guard<std::mutex> lock(TheResolver().mu);
    return TheResolver().asked > 0;
  }
  void SetUp() override {
    const std::lock_guard<std::mutex> lock(TheResolver().mu);
    TheResolver().asked = 0;
    TheResolver().answers = false;
  }
  // Whether `done` ends while the name server is silent.
  static bool EndsBeforeAnswer(const std::function<void()>& act) {
    auto done = std::async(std::launch::async, act);
    const bool ended = done.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
    Answer();
    return ended;
  }
};

TEST_F(SlowResolverTest, DoesNotHoldTheLoopWhenATransferIsAbandoned) {
  HttpEngine engine{HttpOptions()};
  HttpSite site;
  site.base_url = "http://slow.test/";
  HttpBackend backend(site, &engine);
  EXPECT_TRUE(EndsBeforeAnswer([&] {
    auto probe = backend.Probe("x", false, [](ProbeResult) {});
    while (!IsAsked()) {
      engine.Run();
      engine.Wait({}, std::chrono::milliseconds(5));
    }
    probe.reset();
  }));
}

TEST_F(SlowResolverTest, DoesNotHoldTheLoopWhenConnectingTimesOut) {
  HttpOptions options;
  options.connect_timeout = std::chrono::milliseconds(50);
  HttpEngine engine{options};
  HttpSite site;
  site.base_url = "http://slow.test/";
  HttpBackend backend(site, &engine);
  EXPECT_TRUE(EndsBeforeAnswer([&] {
    bool ended = false;
    const auto probe = backend.Probe("x", false, [&](ProbeResult) { ended = true; });
    while (!ended) {
      engine.Run();
      engine.Wait({}, std::chrono::milliseconds(5));
    }
  }));
}

TEST_F(SlowResolverTest, DoesNotHoldACallThatIsCancelled) {
  Cancel cancel;
  EXPECT_TRUE(EndsBeforeAnswer([&] {
    auto call = std::async(std::launch::async, [&] {
      HttpCall what;
      what.url = "http://slow.test/";
      return CallHttp(what, std::chrono::minutes(1), cancel).status().error();
    });
    while (!IsAsked()) std::this_thread::yield();
    cancel.Set();
    EXPECT_EQ(call.get(), ECANCELED);
  }));
}

}  // namespace
}  // namespace fetcher
