#include "fusefs/control/trace_ops.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

// First and last byte in turn: there may be many.
json RangesJson(const std::vector<cachecore::ByteRange>& ranges) {
  json list = json::array();
  for (const cachecore::ByteRange range : ranges) {
    list.push_back(range.begin);
    list.push_back(range.end);
  }
  return list;
}

json FetchesJson(const std::vector<cachecore::EndedFetch>& fetches) {
  json list = json::array();
  for (const cachecore::EndedFetch& fetch : fetches) {
    list.push_back({{field::kOffset, fetch.range.begin},
                    {field::kLength, fetch.range.size()},
                    {field::kFilled, fetch.filled_bytes},
                    {field::kStartedUs, Microseconds(fetch.started)},
                    {field::kWaitedUs, Microseconds(fetch.took)},
                    {field::kDemanded, fetch.demanded}});
  }
  return list;
}

}  // namespace

json TellHistory(cachecore::Cache* cache, const control::Request& request, int64_t started) {
  const auto found = cache->Find(request.volume, request.object);
  if (!found.ok()) return control::EncodeRefusal(found.status());
  if (!found->has_value()) {
    return control::EncodeRefusal(
        cachecore::Status(ENOENT, request.volume + "/" + request.object + " is not in the cache"));
  }
  const cachecore::ObjectNumber number = (*found)->number;
  const cachecore::Result<cachecore::ObjectHistory> history = cache->HistoryOf(number);
  if (!history.ok()) return control::EncodeRefusal(history.status());
  const auto unix_now = std::chrono::system_clock::now().time_since_epoch();
  return {{field::kOk, true},
          {field::kStarted, started},
          {field::kNowUs, Microseconds(history->now)},
          {field::kNowUnixUs, Microseconds(unix_now)},
          {field::kSize, history->size_bytes},
          {field::kDataFile, cache->PathOfData(number)},
          {field::kPresentRanges, RangesJson(history->present)},
          {field::kReadRanges, RangesJson(history->read)},
          {field::kCulledRanges, RangesJson(history->culled)},
          {field::kEnded, ReadsJson(history->ended)},
          {field::kReadsWaiting, ReadsJson(history->waiting)},
          {field::kFetches, FetchesJson(history->fetches)}};
}

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
