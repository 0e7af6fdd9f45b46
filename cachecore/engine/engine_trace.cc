// Engine's reads that wait or have waited, and why.

#include <algorithm>
#include <utility>

#include "cachecore/engine/engine.h"

namespace cachecore {
namespace {

// What is marked in `map`, in order.
std::vector<ByteRange> RangesOf(const PresenceMap& map) {
  std::vector<ByteRange> ranges;
  const uint64_t end = map.size_bytes();
  for (ByteRange range; range.end < end && ranges.size() < ObjectHistory::kMaxRanges;) {
    range.begin = map.FirstPresent({range.end, end});
    range.end = range.begin == end ? end : map.FirstMissing({range.begin, end});
    if (!range.empty()) ranges.push_back(range);
  }
  return ranges;
}

}  // namespace

std::string Engine::KnownCause(const PendingRead& read) const {
  std::string cause = read.why;
  const auto note = [&](MsgId id) {
    const auto found = requests_.all().find(id);
    if (found != requests_.all().end() && !found->second->cause.empty()) {
      cause = found->second->cause;
    }
  };
  // The object is opened before its bytes are read.
  if (read.object != nullptr && read.object->open_request) note(*read.object->open_request);
  for (const MsgId id : read.requests) note(id);
  return cause;
}

// The fetcher's own word where there is one.
std::string Engine::CauseOf(const PendingRead& read, const std::string& circumstances) const {
  std::string cause = KnownCause(read);
  return cause.empty() ? circumstances : cause;
}

// Whether the fetcher has got all that the read waits for.
bool Engine::IsDelivered(const PendingRead& read) const {
  return std::all_of(read.requests.begin(), read.requests.end(), [this](MsgId id) {
    const auto found = requests_.all().find(id);
    return found == requests_.all().end() || found->second->delivered == generation_;
  });
}

std::string Engine::WhyItWaits(const PendingRead& read) const {
  if (!is_served_) return "no fetcher is attached";
  const std::string cause = KnownCause(read);
  if (!cause.empty()) return cause;
  if (!IsDelivered(read)) return Server() + " has not taken its request yet";
  return Server() + " has its request and reports no trouble: the origin is slow";
}

std::string Engine::WhyItWaited(const PendingRead& read, const Status& status) const {
  if (!status.ok()) return status.message();
  std::string cause = KnownCause(read);
  if (!cause.empty()) return cause;
  if (read.started < attached_at_) {
    const auto gone =
        std::chrono::duration_cast<std::chrono::milliseconds>(attached_at_ - read.started);
    return "no fetcher was attached for its first " + std::to_string(gone.count()) + " ms";
  }
  return Server() + " reported no trouble: the origin was slow";
}

WaitedRead Engine::DescribeWait(const PendingRead& read) const {
  return {.object = read.object->number,
          .volume_key = read.object->volume_key,
          .cookie_key = read.object->cookie_key,
          .range = read.range,
          .started = read.started,
          .waited = clock_.Now() - read.started,
          .reader = read.reader,
          .why = ""};
}

void Engine::NoteEnded(const PendingRead& read, const Status& status) {
  WaitedRead ended = DescribeWait(read);
  ended.error = status.error();
  ended.why = WhyItWaited(read, status);
  history_.Add(std::move(ended));
}

ObjectHistory Engine::HistoryOf(const Object& object) const {
  ObjectHistory history;
  history.now = clock_.Now();
  history.size_bytes = object.size_bytes;
  history.present = RangesOf(object.presence);
  history.read = RangesOf(object.was_read);
  history.culled = RangesOf(object.was_culled);
  for (const WaitedRead& read : history_.reads()) {
    if (read.object == object.number) history.ended.push_back(read);
  }
  for (const auto& [position, read] : object.waiting) {
    history.waiting.push_back(DescribeWait(*read));
    history.waiting.back().why = WhyItWaits(*read);
  }
  for (const EndedFetch& fetch : history_.fetches()) {
    if (fetch.object == object.number) history.fetches.push_back(fetch);
  }
  return history;
}

TraceAnswer Engine::Trace(const TraceQuestion& question) const {
  TraceAnswer answer;
  answer.now = clock_.Now();
  const std::deque<WaitedRead>& ended = history_.reads();
  const uint64_t first = ended.empty() ? history_.last() + 1 : ended.front().serial;
  if (question.after + 1 < first) answer.lost = first - question.after - 1;
  answer.last = history_.last();
  const uint64_t begin = std::max(question.after + 1, first) - first;
  for (uint64_t i = begin; i < ended.size(); ++i) {
    if (ended[i].waited < question.over) continue;
    if (answer.ended.size() == question.max) {
      answer.last = ended[i].serial - 1;
      answer.is_all = false;
      break;
    }
    answer.ended.push_back(ended[i]);
  }
  for (const auto& [number, object] : objects_) {
    for (const auto& [position, read] : object->waiting) {
      const Duration reached = read->started + question.over;
      if (reached > answer.now || reached <= question.since) continue;
      if (answer.waiting.size() == question.max) {
        ++answer.waiting_left_out;
        continue;
      }
      answer.waiting.push_back(DescribeWait(*read));
      answer.waiting.back().why = WhyItWaits(*read);
    }
  }
  return answer;
}

}  // namespace cachecore
