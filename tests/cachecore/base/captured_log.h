// CapturedLog: the lines that are logged while it lives.
//
// Threads  thread-safe.

#ifndef TESTS_CACHECORE_BASE_CAPTURED_LOG_H_
#define TESTS_CACHECORE_BASE_CAPTURED_LOG_H_

#include <glog/logging.h>

#include <mutex>
#include <string>
#include <vector>

namespace cachecore {

class CapturedLog : public google::LogSink {
 public:
  CapturedLog() { google::AddLogSink(this); }
  ~CapturedLog() override { google::RemoveLogSink(this); }

  void send(google::LogSeverity, const char*, const char*, int, const tm*, const char* message,
            size_t size) override {
    const std::lock_guard<std::mutex> lock(mu_);
    lines_.emplace_back(message, size);
  }
  // How many lines have `part`.
  int Count(const std::string& part) {
    const std::lock_guard<std::mutex> lock(mu_);
    int count = 0;
    for (const std::string& line : lines_) count += line.find(part) != std::string::npos ? 1 : 0;
    return count;
  }

 private:
  std::mutex mu_;
  std::vector<std::string> lines_;
};

}  // namespace cachecore

#endif  // TESTS_CACHECORE_BASE_CAPTURED_LOG_H_
