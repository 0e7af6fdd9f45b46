// What a report's numbers look like, and text that is safe in HTML.
//
// Threads  thread-safe: no state.

#ifndef HOST_REPORT_REPORT_TEXT_H_
#define HOST_REPORT_REPORT_TEXT_H_

#include <cstdint>
#include <string>

namespace host {

// For text and for attributes in double quotes; bytes that are not UTF-8 and control characters are
// replaced.
std::string Html(const std::string& text);
// "12.5 %"; "0 %" of nothing.
std::string ShareText(uint64_t part, uint64_t whole);
// "12 ms", "1.25 s".
std::string TimeText(int64_t us);
// The local time, to the second.
std::string ClockText(int64_t unix_us);
std::string Fixed(double value, int digits);

}  // namespace host

#endif  // HOST_REPORT_REPORT_TEXT_H_
