#include <glog/logging.h>

#include <variant>

#include "fetcher/http/http_answer.h"
#include "fetcher/http/http_range.h"
#include "tests/fuzz/fuzz_target.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = AsText(data, size);
  const auto parsed = fetcher::ParseContentRange(input);
  if (parsed.ok() && parsed->range) {
    CHECK(!parsed->range->empty());
    CHECK(!parsed->total || parsed->range->end <= *parsed->total);
  }
  // Whatever the header says, only the range that was asked for may pass.
  fetcher::HttpAnswer answer;
  answer.status = 206;
  answer.content_range = input;
  const fetcher::ObjectVersion version{1 << 20, {}};
  if (!fetcher::JudgeFetch(answer, {4096, 8192}, version, "http://h/x")) {
    CHECK(parsed->range->begin == 4096 && parsed->range->end <= 8192);
    CHECK(!parsed->total || *parsed->total == version.size_bytes);
  }
  const auto probed = fetcher::JudgeProbe(answer, "http://h/x");
  if (const auto* found = std::get_if<fetcher::ObjectVersion>(&probed)) {
    CHECK_EQ(found->size_bytes, *parsed->total);
  }
  return 0;
}
