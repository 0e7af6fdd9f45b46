// FetcherHttpTest: a fetcher between the test's daemon and an HTTP origin that the test scripts.

#ifndef TESTS_FETCHER_ENGINE_FETCHER_HTTP_FIXTURE_H_
#define TESTS_FETCHER_ENGINE_FETCHER_HTTP_FIXTURE_H_

#include <string>

#include "tests/fetcher/engine/fetcher_fixture.h"

namespace fetcher {

constexpr uint64_t kPage = 64 << 10;

inline std::string AttrLine(uint32_t object, const std::string& json) {
  return cachecore::wire::FormatCommand(cachecore::wire::AttrCommand{{object}, json});
}

class FetcherHttpTest : public FetcherTest {
 protected:
  std::string At(uint64_t offset, uint64_t length) { return body_.substr(offset, length); }

  ScriptedOrigin origin_{body_};
  // The attr that an open object at origin_ has.
  std::string attr_ = R"({"pins":{")" + origin_.url() + R"(":{"etag":"\"one\""}},"size":)" +
                      std::to_string(body_.size()) + "}";
};

// ---- Long names

}  // namespace fetcher

#endif  // TESTS_FETCHER_ENGINE_FETCHER_HTTP_FIXTURE_H_
