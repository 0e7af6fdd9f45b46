#include <glog/logging.h>

#include "cachecore/protocol/wire.h"
#include "tests/fuzz/fuzz_target.h"

namespace wire = cachecore::wire;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const uint32_t caps : {0u, wire::kAllCaps}) {
    const auto message = wire::DecodeMessage(AsText(data, size), caps);
    if (!message.ok()) continue;
    const std::string again = wire::EncodeMessage(*message, caps);
    CHECK_EQ(again.size(), size);
    CHECK(wire::EncodeMessage(*wire::DecodeMessage(again, caps), caps) == again);
  }
  return 0;
}
