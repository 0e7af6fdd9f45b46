#include <glog/logging.h>

#include "fetcher/transfer/object_attr.h"
#include "tests/fuzz/fuzz_target.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto attr = fetcher::DecodeAttr(AsText(data, size));
  if (!attr.ok()) return 0;
  const auto text = fetcher::EncodeAttr(*attr);
  if (!text.ok()) return 0;  // It did not fit.
  const auto again = fetcher::DecodeAttr(*text);
  CHECK(again.ok()) << *text;
  CHECK(again->size_bytes == attr->size_bytes && again->pins == attr->pins);
  return 0;
}
