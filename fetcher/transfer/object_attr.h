// ObjectAttr: what the fetcher has the daemon remember with an object, so that a new fetcher can go
// on without asking any origin.  Pure.
//
// Model    {"size":N,"pins":{"http://h/base/":{"etag":"\"x\""}}}: the size, and per origin (its
//          URL, redacted) what was pinned there; {} is an origin without a validator.
// Errors   EBADMSG for what is no such text; E2BIG when it would not fit kMaxAttrSize.

#ifndef FETCHER_TRANSFER_OBJECT_ATTR_H_
#define FETCHER_TRANSFER_OBJECT_ATTR_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "cachecore/base/status.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

struct ObjectAttr {
  uint64_t size_bytes = 0;
  std::map<std::string, Pin> pins;  // By origin.
};

// How pins know the origin of that redacted URL: by it, or by its digest if it is long.
std::string PinName(const std::string& url);
cachecore::Result<std::string> EncodeAttr(const ObjectAttr& attr);
cachecore::Result<ObjectAttr> DecodeAttr(std::string_view text);

}  // namespace fetcher

#endif  // FETCHER_TRANSFER_OBJECT_ATTR_H_
