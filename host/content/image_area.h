// ImageArea: the part of an object that is mounted.
//
// Units    bytes.

#ifndef HOST_CONTENT_IMAGE_AREA_H_
#define HOST_CONTENT_IMAGE_AREA_H_

#include <cstdint>

namespace host {

struct ImageArea {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // 0: up to the object's end.

  bool IsWhole() const { return offset == 0 && bytes == 0; }
};

}  // namespace host

#endif  // HOST_CONTENT_IMAGE_AREA_H_
