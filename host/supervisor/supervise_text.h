// Text without allocation, for a supervisor that has taken all its memory.

#ifndef HOST_SUPERVISOR_SUPERVISE_TEXT_H_
#define HOST_SUPERVISOR_SUPERVISE_TEXT_H_

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace host {

// One line to stderr.  Not glog, which allocates.
__attribute__((format(printf, 1, 2))) void Say(const char* format, ...);

// A text of bounded length.
template <size_t kBytesMax>
class FixedText {
 public:
  void Assign(std::string_view text) {
    size_ = std::min(text.size(), kBytesMax);
    std::copy_n(text.begin(), size_, bytes_);
  }
  std::string_view view() const { return {bytes_, size_}; }

 private:
  char bytes_[kBytesMax];
  size_t size_ = 0;
};

}  // namespace host

#endif  // HOST_SUPERVISOR_SUPERVISE_TEXT_H_
