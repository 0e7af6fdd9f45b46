#include <glog/logging.h>

#include "cachecore/base/parse_text.h"
#include "fetcher/source/source_config.h"
#include "tests/fuzz/fuzz_target.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = AsText(data, size);
  const auto config = fetcher::ParseSourceConfig(input);
  if (config.ok()) {
    CHECK(!config->origins.empty());
    for (const std::string& origin : config->origins) {
      CHECK(origin.ends_with('/'));
      CHECK(fetcher::RedactUrl(origin).ends_with('/'));
    }
  }
  static_cast<void>(fetcher::RedactUrl(input).size());
  if (fetcher::CheckObjectKey(input).ok()) {
    const auto decoded = cachecore::PercentDecode(input);
    CHECK(decoded.ok());
    CHECK(decoded->find('/') == std::string::npos && *decoded != "." && *decoded != "..");
  }
  return 0;
}
