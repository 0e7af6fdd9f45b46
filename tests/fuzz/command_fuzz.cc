#include <glog/logging.h>

#include "cachecore/protocol/wire.h"
#include "tests/fuzz/fuzz_target.h"

namespace wire = cachecore::wire;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto lines = wire::SplitPacket(AsText(data, size));
  if (!lines.ok()) return 0;
  for (const std::string_view line : *lines) {
    const auto command = wire::ParseCommand(line);
    if (!command.ok()) continue;
    const std::string text = wire::FormatCommand(*command);
    const auto again = wire::ParseCommand(text);
    CHECK(again.ok()) << text;
    CHECK_EQ(wire::FormatCommand(*again), text);
  }
  return 0;
}
