// The readers' half of Engine: reads, what they need fetched, and how they end.

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cachecore/engine/engine.h"

namespace cachecore {
namespace {

// Long enough for the kernel to come back, far shorter than any request timeout worth setting.
constexpr Duration kEchoTime = std::chrono::seconds(1);
// How many READs one step of read-ahead may make where presence has many gaps.
constexpr size_t kMaxAhead = 1024;
// From this age on a waiting read is logged, and again each time that its age has doubled.
constexpr Duration kSlowAfter = std::chrono::seconds(30);
constexpr Duration kSlowEvery = std::chrono::seconds(1);  // How often waiting reads are looked at.
constexpr uint64_t kExactMaxFetch = 2 << 20;  // What clients of the kernel's interface accept.

uint64_t AlignDown(uint64_t value, uint64_t alignment) { return value - value % alignment; }
uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return AlignDown(value + alignment - 1, alignment);
}

}  // namespace

ReadTicket Engine::Read(Object* object, ByteRange range, Duration deadline, ReadDone done,
                        Effects* effects, Reader reader) {
  CHECK(object->size_known && range.end <= object->size_bytes && !range.empty());
  auto read = std::make_shared<PendingRead>();
  read->object = object;
  read->range = range;
  read->position = range.begin;
  read->started = clock_.Now();
  object->NoteRead(range);
  read->why = std::move(reader.again);
  read->reader = std::move(reader);
  read->done = std::move(done);
  ++counters_.reads_waited;
  if (const ExpiredRead* expired = FindExpired(object, range)) {
    Finish(read, expired->status, effects);
    return read;
  }
  Await(read, effects);
  if (deadline != Duration::zero()) read->deadline = deadlines_.emplace(deadline, read);
  return read;
}

const ExpiredRead* Engine::FindExpired(Object* object, ByteRange range) {
  std::erase_if(object->expired, [now = clock_.Now()](const ExpiredRead& expired) {
    return expired.echo_until <= now;
  });
  for (const ExpiredRead& expired : object->expired) {
    if (expired.range.Contains(range)) return &expired;
  }
  return nullptr;
}

// What it still waits for, from its position on.
std::vector<ByteRange> Engine::MissingOf(const PendingRead& read) {
  std::vector<ByteRange> gaps = read.object->presence.Gaps({read.position, read.range.end});
  for (const ThroughPart& part : read.through) {
    std::vector<ByteRange> left;
    for (const ByteRange gap : gaps) {
      const ByteRange before{gap.begin, std::min(gap.end, part.range.begin)};
      const ByteRange behind{std::max(gap.begin, part.range.end), gap.end};
      if (before.begin < before.end) left.push_back(before);
      if (behind.begin < behind.end) left.push_back(behind);
    }
    gaps = std::move(left);
  }
  return gaps;
}

// Puts a read in line at its first missing byte and makes sure that all it misses is requested.
void Engine::Await(const ReadTicket& read, Effects* effects) {
  Object* object = read->object;
  const std::vector<ByteRange> gaps = MissingOf(*read);
  CHECK(!gaps.empty());
  read->position = gaps.front().begin;
  for (const ByteRange gap : gaps) CoverGap(read, gap, effects);
  object->waiting.emplace(read->position, read);
}

// For the reads whose first missing byte lies in `range`, whose request has ended.
void Engine::AwaitAgain(Object* object, ByteRange range, Effects* effects) {
  std::vector<ReadTicket> again;
  auto it = object->waiting.lower_bound(range.begin);
  while (it != object->waiting.end() && it->first < range.end) {
    again.push_back(it->second);
    it = object->waiting.erase(it);
  }
  for (const ReadTicket& read : again) Await(read, effects);
}

void Engine::CoverGap(const ReadTicket& read, ByteRange gap, Effects* effects) {
  Object* object = read->object;
  uint64_t cursor = gap.begin;
  while (cursor < gap.end) {
    auto next = object->in_flight.upper_bound(cursor);
    uint64_t low = 0;
    if (next != object->in_flight.begin()) {
      Request* before = requests_.Find(std::prev(next)->second);
      if (before->range.Contains(cursor)) {
        Join(before, read);
        cursor = before->range.end;
        continue;
      }
      low = before->range.end;
    }
    const uint64_t high = next == object->in_flight.end() ? object->size_bytes : next->first;
    const ByteRange hole{cursor, std::min(gap.end, high)};
    // Exact means to the block: less than one cannot become present.
    const uint64_t grain = options_.exact ? kBlockSize : options_.fetch_size;
    const ByteRange wanted{std::max(low, AlignDown(hole.begin, grain)),
                           std::min(high, AlignUp(hole.end, grain))};
    AskFor(object, wanted, read, hole, effects);
    cursor = hole.end;
  }
}

// Makes READs for the absent parts of `wanted`, which overlaps no request.  `read`, if any, takes a
// share in those that overlap `needed`; the others are background.
void Engine::AskFor(Object* object, ByteRange wanted, const ReadTicket& read, ByteRange needed,
                    Effects* effects) {
  const uint64_t limit = options_.exact ? kExactMaxFetch : options_.max_fetch;
  for (ByteRange gap : object->presence.Gaps(wanted)) {
    while (!gap.empty()) {
      const ByteRange part{gap.begin, std::min(gap.end, gap.begin + limit)};
      Request* request = NewRequest(object, wire::Opcode::kRead, part, effects);
      object->in_flight.emplace(part.begin, request->id);
      if (read != nullptr && part.Overlaps(needed)) {
        Join(request, read);
      } else {
        request->background = true;
      }
      gap.begin = part.end;
    }
  }
}

void Engine::Join(Request* request, const ReadTicket& read) {
  auto& shares = read->requests;
  if (std::find(shares.begin(), shares.end(), request->id) != shares.end()) return;
  requests_.Promote(request);
  request->demanded = true;
  ++request->waiters;
  read->requests.push_back(request->id);
}

ByteRange Engine::AdvanceReadAhead(Object* object, ByteRange range) {
  if (options_.exact || object->full) return {};
  return object->read_ahead.Advance(range, options_.fetch_size, options_.read_ahead_max);
}

void Engine::Prefetch(Object* object, ByteRange range, Effects* effects) {
  if (range.empty()) return;
  const uint64_t end = std::min(object->size_bytes, AlignUp(range.end, options_.fetch_size));
  uint64_t cursor = AlignDown(range.begin, options_.fetch_size);
  const size_t made_before = effects->created.size();
  while (cursor < end && effects->created.size() - made_before < kMaxAhead) {
    auto next = object->in_flight.upper_bound(cursor);
    if (next != object->in_flight.begin()) {
      const Request* before = requests_.Find(std::prev(next)->second);
      if (before->range.Contains(cursor)) {
        cursor = before->range.end;
        continue;
      }
    }
    const uint64_t high = next == object->in_flight.end() ? end : std::min(end, next->first);
    const ByteRange part{cursor, std::min(high, cursor + options_.max_fetch)};
    AskFor(object, part, nullptr, {}, effects);
    cursor = part.end;
  }
}

void Engine::Unqueue(const ReadTicket& read) {
  auto [it, end] = read->object->waiting.equal_range(read->position);
  while (it != end && it->second != read) ++it;
  CHECK(it != end);
  read->object->waiting.erase(it);
}

// REQUIRES: `read` is not in object->waiting any more.
void Engine::Finish(const ReadTicket& read, const Status& status, Effects* effects) {
  CHECK(!read->ended);
  read->ended = true;
  if (read->deadline) deadlines_.erase(*std::exchange(read->deadline, std::nullopt));
  NoteEnded(*read, status);
  for (const MsgId id : read->requests) {
    Request* request = requests_.Find(id);
    if (request == nullptr) continue;
    CHECK_GT(request->waiters, 0u);
    if (--request->waiters > 0) continue;
    // After a success a request that is under way may finish.  After a failure no read needs it.
    if (status.ok()) {
      request->background = true;
    } else {
      EndRequest(request, effects);
    }
  }
  read->requests.clear();
  if (!status.ok()) ++counters_.reads_failed;
  ReadBytes bytes{read->object->file, read->object->verity, std::move(read->through)};
  read->object = nullptr;
  effects->reads.push_back({std::move(read->done), status, std::move(bytes)});
}

bool Engine::Withdraw(const ReadTicket& read, const Status& why, Effects* effects) {
  if (read->ended) return false;
  ++counters_.reads_withdrawn;
  Unqueue(read);
  Finish(read, why, effects);
  return true;
}

// One line an object, of the read that has waited longest.
void Engine::ReportSlow(const std::string& circumstances, Effects* effects) {
  const Duration now = clock_.Now();
  if (now - slow_looked_ < kSlowEvery) return;
  slow_looked_ = now;
  for (auto& [number, object] : objects_) {
    const PendingRead* oldest = nullptr;
    for (const auto& [position, read] : object->waiting) {
      if (oldest == nullptr || read->started < oldest->started) oldest = read.get();
    }
    if (oldest == nullptr || now - oldest->started < kSlowAfter) {
      object->slow_report = Duration::zero();
      continue;
    }
    const Duration age = now - oldest->started;
    if (age < object->slow_report) continue;
    object->slow_report = std::max(2 * age, 2 * kSlowAfter);
    effects->log.push_back(
        "object " + object->volume_key + "/" + object->cookie_key + " range " +
        oldest->range.ToString() + ": a read by process " + std::to_string(oldest->reader.thread) +
        " has waited " +
        std::to_string(std::chrono::duration_cast<std::chrono::seconds>(age).count()) + " s (" +
        std::to_string(object->waiting.size()) +
        " reads of it wait): " + CauseOf(*oldest, circumstances));
  }
}

void Engine::Expire(const std::string& circumstances, Effects* effects) {
  const Duration now = clock_.Now();
  tick_ = now;
  if (wake_at_ <= now) {
    // One time for all: that of an object which is held for longer is kept.
    wake_at_ = Duration::max();
    for (const auto& [number, object] : objects_) {
      if (object->open_held_until > now) wake_at_ = std::min(wake_at_, object->open_held_until);
    }
    effects->wake_device = true;
  }
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const ReadTicket read = deadlines_.begin()->second.lock();
    CHECK(read != nullptr && !read->ended);  // Their ends take them out.
    Object* object = read->object;
    const std::string cause = CauseOf(*read, circumstances);
    const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(now - read->started);
    effects->log.push_back("object " + object->volume_key + "/" + object->cookie_key + " range " +
                           read->range.ToString() + ": EIO after " +
                           std::to_string(waited.count()) + " ms without an answer: " + cause);
    ++counters_.reads_expired;
    const Status status(EIO, effects->log.back());
    object->expired.push_back({read->range, now + kEchoTime, status});
    Unqueue(read);
    Finish(read, status, effects);
  }
  ReportSlow(circumstances, effects);
  for (auto& [number, object] : objects_) {
    if (object->acquires.empty()) continue;
    auto& acquires = object->acquires;
    const Request* open = object->open_request ? requests_.Find(*object->open_request) : nullptr;
    const std::string cause = open != nullptr && !open->cause.empty() ? open->cause : circumstances;
    for (auto it = acquires.begin(); it != acquires.end();) {
      if (it->deadline == Duration::zero() || it->deadline > now) {
        ++it;
        continue;
      }
      const Status status(ETIMEDOUT, "no answer in time: " + cause);
      effects->acquires.emplace_back(std::move(it->done), status);
      it = acquires.erase(it);
    }
  }
}

// Fails the reads whose first missing byte lies in `range`.
void Engine::FailReadsIn(Object* object, ByteRange range, const Status& status, Effects* effects) {
  std::vector<ReadTicket> failed;
  auto it = object->waiting.lower_bound(range.begin);
  while (it != object->waiting.end() && it->first < range.end) {
    failed.push_back(it->second);
    it = object->waiting.erase(it);
  }
  for (const ReadTicket& read : failed) Finish(read, status, effects);
}

void Engine::FailReads(Object* object, const Status& status, Effects* effects) {
  FailReadsIn(object, {0, UINT64_MAX}, status, effects);
}

void Engine::Fill(Object* object, ByteRange range, Effects* effects) {
  if (object->culling && object->culling->range.Overlaps(range)) {
    const ByteRange culled = object->culling->range;
    for (const ByteRange part : {ByteRange{range.begin, std::max(range.begin, culled.begin)},
                                 ByteRange{std::min(range.end, culled.end), range.end}}) {
      if (!part.empty()) Fill(object, part, effects);
    }
    return;
  }
  const uint64_t before = object->presence.present_bytes();
  const ByteRange added = object->presence.Add(range);
  if (added.empty()) return;
  object->full = false;
  const uint64_t fresh = object->presence.present_bytes() - before;
  counters_.bytes_filled += fresh;
  counters_.bytes_filled_twice += added.size() - fresh;
  object->unsynced.push_back(added);
  object->unsynced_bytes += added.size();
  if (object->was_culled.present_bytes() > 0) object->was_culled.Remove(added);
  NoteUse(object, added);
  NotePresent(object, added, effects);
}

void Engine::NotePresent(Object* object, ByteRange added, Effects* effects) {
  auto covering = object->in_flight.upper_bound(added.begin);
  if (covering != object->in_flight.begin()) --covering;
  for (; covering != object->in_flight.end() && covering->first < added.end; ++covering) {
    Request* request = requests_.Find(covering->second);
    request->filled_bytes += request->range.Intersect(added).size();
  }

  std::vector<ReadTicket> touched;
  auto it = object->waiting.lower_bound(added.begin);
  while (it != object->waiting.end() && it->first < added.end) {
    touched.push_back(it->second);
    it = object->waiting.erase(it);
  }
  for (const ReadTicket& read : touched) {
    FinishOrAwait(read, effects);
  }
}

void Engine::FinishOrAwait(const ReadTicket& read, Effects* effects) {
  if (MissingOf(*read).empty()) {
    Finish(read, Status(), effects);
  } else {
    // Its causes go with the requests that have ended by the time it ends.
    read->why = KnownCause(*read);
    // What it misses further on was requested when it came, or has failed since.
    Await(read, effects);
  }
}

bool Engine::AwaitsThrough(const wire::ThroughCommand& command) {
  const Object* object = FindLive(command.object_id);
  const Request* request = requests_.Find(command.msg_id);
  return object != nullptr && request != nullptr && request->opcode == wire::Opcode::kRead &&
         request->object == object->number && request->range == command.range && object->full &&
         command.range.size() <= wire::kMaxThroughSize;
}

int Engine::Through(const wire::ThroughCommand& command, std::shared_ptr<const UniqueFd> bytes,
                    Effects* effects) {
  if (!AwaitsThrough(command)) return -EINVAL;
  Object* object = FindLive(command.object_id);
  EndRequest(requests_.Find(command.msg_id), effects);
  std::vector<ReadTicket> touched;
  for (auto it = object->waiting.begin();
       it != object->waiting.end() && it->first < command.range.end;) {
    if (!it->second->range.Overlaps(command.range)) {
      ++it;
      continue;
    }
    touched.push_back(it->second);
    it = object->waiting.erase(it);
  }
  for (const ReadTicket& read : touched) {
    read->through.push_back({read->range.Intersect(command.range), bytes});
    FinishOrAwait(read, effects);
  }
  counters_.bytes_through += command.range.size();
  return 0;
}

}  // namespace cachecore
