#include "fusefs/control/trace_ops.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

namespace fusefs {

namespace control = cachecore::control;
namespace field = cachecore::control::field;
using cachecore::WaitedRead;
using nlohmann::json;

namespace {

// No follower means a longer time.
constexpr uint64_t kMaxUs = uint64_t{1} << 50;

int64_t Microseconds(cachecore::Duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

cachecore::Duration OfMicroseconds(uint64_t us) {
  return std::chrono::microseconds(std::min(us, kMaxUs));
}

json ReadsJson(const std::vector<WaitedRead>& reads) {
  json list = json::array();
  for (const WaitedRead& read : reads) {
    list.push_back({{field::kVolume, read.volume_key},
                    {field::kObject, read.cookie_key},
                    {field::kOffset, read.range.begin},
                    {field::kLength, read.range.size()},
                    {field::kStartedUs, Microseconds(read.started)},
                    {field::kWaitedUs, Microseconds(read.waited)},
                    {field::kThread, read.reader.thread},
                    {field::kPid, read.reader.process},
                    {field::kCommand, read.reader.command},
                    {field::kErrno, read.error},
                    {field::kWhy, read.why}});
  }
  return list;
}

}  // namespace

json TraceReads(cachecore::Cache* cache, const control::Request& request) {
  cachecore::TraceQuestion question;
  question.after = request.after.value_or(UINT64_MAX - 1);
  question.over = OfMicroseconds(request.over_us);
  question.since = OfMicroseconds(request.since_us);
  const cachecore::TraceAnswer answer = cache->Trace(question);
  const auto unix_now = std::chrono::system_clock::now().time_since_epoch();
  return {{field::kOk, true},
          {field::kPid, getpid()},
          {field::kNowUs, Microseconds(answer.now)},
          {field::kNowUnixUs, Microseconds(unix_now)},
          {field::kLast, answer.last},
          {field::kIsAll, answer.is_all},
          {field::kLost, answer.lost},
          {field::kEnded, ReadsJson(answer.ended)},
          {field::kReadsWaiting, ReadsJson(answer.waiting)},
          {field::kLeftOut, answer.waiting_left_out}};
}

}  // namespace fusefs
