#include <glog/logging.h>

#include "cachecore/values/presence_leaf.h"
#include "tests/fuzz/fuzz_target.h"

using cachecore::PresenceLeaf;

namespace {

std::string BlocksOf(const PresenceLeaf& leaf) {
  std::string blocks;
  for (uint32_t i = 0; i < PresenceLeaf::kBlocks; ++i) {
    blocks.push_back(leaf.FirstMissing(i, i + 1) == i ? '0' : '1');
  }
  return blocks;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  PresenceLeaf leaf;
  leaf.Add(100, 200);
  const std::string before = leaf.Encode();
  uint32_t added = 0;
  if (!leaf.Merge(AsText(data, size), &added).ok()) {
    CHECK(leaf.Encode() == before) << "a refused value has changed the leaf";
    return 0;
  }
  CHECK_EQ(leaf.count(), 100 + added);
  PresenceLeaf again;
  CHECK(again.Merge(leaf.Encode(), &added).ok());
  CHECK_EQ(again.count(), leaf.count());
  CHECK(BlocksOf(again) == BlocksOf(leaf));
  return 0;
}
