// LittleEndian: a number in the metadata of an image.
//
// Units    bytes; at most eight.
// Threads  a pure function.

#ifndef HOST_CONTENT_LITTLE_ENDIAN_H_
#define HOST_CONTENT_LITTLE_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace host {

// The caller has seen that the bytes are there.
inline uint64_t LittleEndian(std::string_view bytes, size_t offset, size_t length) {
  uint64_t value = 0;
  for (size_t i = length; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[offset + i]);
  }
  return value;
}

}  // namespace host

#endif  // HOST_CONTENT_LITTLE_ENDIAN_H_
