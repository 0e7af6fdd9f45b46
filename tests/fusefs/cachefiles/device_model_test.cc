// Random operations on a CachefilesDevice by several programs, beside readers that are killed and
// under lives of the daemon that follow each other: what the kernel's interface promises is checked
// after each of them.

#include "tests/fusefs/cachefiles/device_model.h"

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fusefs/inject/injection_job.h"
#include "tests/cachecore/engine/seed.h"

// RocksDB is not compiled for the sanitizer, but calls functions of std::string here that are.
extern "C" const char* __tsan_default_suppressions() {
  return "race:rocksdb::\nrace:rocksdb_metadata_store.cc";
}

namespace fusefs {
namespace {

using cachecore::FileSlice;
using cachecore::Freshness;
using cachecore::ObjectInfo;
using cachecore::ObjectNumber;
using cachecore::RequestInfo;
using cachecore::Result;
using cachecore::Status;
namespace wire = cachecore::wire;

constexpr auto kPatience = std::chrono::milliseconds(20);  // Of a reader, before it is killed.

pid_t ThreadId() { return static_cast<pid_t>(syscall(SYS_gettid)); }

// A program with the device: each step is one of its calls.
class Program {
 public:
  Program(World* world, uint64_t seed) : world_(*world), dice_(seed) {}

  void Run() {
    for (int i = 0; i < kStepsOfAProgram && !testing::Test::HasFailure(); ++i) {
      {
        const std::lock_guard lock(world_.mu);
        Step();
        world_.KeepStep();
        ++totals.steps;
        CheckRequests();
      }
      std::this_thread::yield();
    }
    const std::lock_guard lock(world_.mu);
    Die();
    world_.KeepStep();
  }

 private:
  void Step() {
    const int roll = dice_.Below(1000);
    if (roll < 350) {
      ReadMessage();
    } else if (roll < 550) {
      AnswerOpen();
    } else if (roll < 850) {
      ServeRead();
    } else if (roll < 900) {
      Lie();
    } else if (roll < 940) {
      WriteAhead();
    } else if (roll < 970) {
      CloseOne();
    } else if (roll < 990) {
      const std::string command = "restore";
      EXPECT_EQ(world_.device->Write(ThreadId(), command), static_cast<int64_t>(command.size()));
    } else if (roll < 995) {
      Die();
    } else if (roll < 998) {
      CloseDevice();
    } else {
      world_.Restart();
    }
  }

  // X1, X5: the table has no request that nothing waits for, and one OPEN of an object at most.
  void CheckRequests() {
    std::set<uint64_t> opening;
    for (const RequestInfo& request : world_.cache->DescribeRequests()) {
      const auto it = world_.given.find(request.id.value);
      const bool is_answered = it != world_.given.end() && it->second.is_answered;
      EXPECT_FALSE(is_answered) << "request " << request.id.value << " was completed (I1)";
      if (request.opcode != wire::Opcode::kOpen) continue;
      EXPECT_TRUE(opening.insert(request.object.value).second) << "a second OPEN (X5)";
    }
  }

  void ReadMessage() {
    const bool opens = dice_.Below(30) != 0;
    const size_t room = dice_.Below(30) == 0 ? 20 : 4096;
    const Result<DeviceMessage> packet = world_.device->Read(ThreadId(), room);
    if (!packet.ok() || packet->bytes.empty()) return;
    if (!opens && packet->kind == DeviceMessage::Kind::kOpen) {  // A reader that is refused.
      EXPECT_EQ(world_.device->FailOpen(packet->msg_id, Status(EOPNOTSUPP, "refused")), 0);
      return;
    }
    const auto message = wire::DecodeMessage(packet->bytes, 0);
    ASSERT_TRUE(message.ok()) << message.status().message();
    if (const auto* open = std::get_if<wire::OpenMessage>(&*message)) {
      TakeOpen(*open);
    } else if (const auto* read = std::get_if<wire::ReadMessage>(&*message)) {
      TakeRead(*read);
    }
  }

  World::Given* Take(MsgId id, bool is_open) {
    World::Given& given = world_.given[id.value];
    EXPECT_FALSE(given.is_answered) << "request " << id.value << " came after its answer (I1, I16)";
    EXPECT_TRUE(given.id.value == 0 || given.is_open == is_open) << id.value;
    given.id = id;
    given.is_open = is_open;
    world_.unanswered.insert(id.value);
    return &given;
  }

  void TakeOpen(const wire::OpenMessage& open) {
    World::Given* given = Take(open.msg_id, true);
    ++totals.opens;
    given->object = open.object_id;
    given->name = open.cookie_key[0] - '0';
    EXPECT_TRUE(world_.seen.insert(open.object_id).second) << "object id given twice (I16)";
    // The file of an OPEN that ended with its reader belongs to an object that is no more.
    for (const auto& [id, other] : world_.live) {
      EXPECT_FALSE(other.has_size && other.name == given->name)
          << "two instances of an object (I6, X4)";
    }
    if (dice_.Below(20) == 0) {
      const int result = world_.device->FailOpen(open.msg_id.value, EMFILE);
      if (result == 0) SetAnswered(given);
      return;
    }
    const auto handle = world_.device->OpenObject(open.object_id, ThreadId());
    ASSERT_TRUE(handle.ok()) << handle.status().message();
    EXPECT_FALSE(world_.device->OpenObject(open.object_id, ThreadId()).ok());
    world_.live[open.object_id] = {given->name, *handle, false};
    mine_.push_back(open.object_id);
  }

  void TakeRead(const wire::ReadMessage& read) {
    World::Given* given = Take(read.msg_id, false);
    ++totals.reads;
    const auto live = world_.live.find(read.object_id);
    ASSERT_TRUE(live != world_.live.end()) << "a READ of an object that is not open (X6)";
    EXPECT_TRUE(live->second.has_size) << "a READ before the copen (X6)";
    given->object = read.object_id;
    given->name = live->second.name;
    given->range = read.range;
    EXPECT_EQ(read.range.begin % kPage, 0u);
    EXPECT_LE(given->range.end, kSize);
    EXPECT_FALSE(given->range.empty());
  }

  // Of what was delivered and not answered, or null.
  World::Given* PickGiven(bool is_open) {
    std::vector<World::Given*> some;
    for (const uint32_t id : world_.unanswered) {
      World::Given& given = world_.given.at(id);
      if (given.is_open == is_open) some.push_back(&given);
    }
    return some.empty() ? nullptr : dice_.PickFrom(some);
  }

  int Copen(uint32_t id, int64_t size) {
    const std::string command = "copen " + std::to_string(id) + "," + std::to_string(size);
    const int64_t result = world_.device->Write(ThreadId(), command);
    return result == static_cast<int64_t>(command.size()) ? 0 : static_cast<int>(result);
  }

  // An answer was taken; or its request has ended, or was not delivered since the last restore.
  void Note(World::Given* given, int result) {
    EXPECT_TRUE(result == 0 || result == -EINVAL) << result;
    const std::vector<RequestInfo> pending = world_.cache->DescribeRequests();
    const auto is_it = [given](const RequestInfo& request) { return request.id == given->id; };
    if (result == 0 || std::none_of(pending.begin(), pending.end(), is_it)) SetAnswered(given);
  }
  void SetAnswered(World::Given* given) {
    given->is_answered = true;
    world_.unanswered.erase(given->id.value);
  }

  void AnswerOpen() {
    World::Given* given = PickGiven(true);
    if (given == nullptr) return;
    const bool refuse = dice_.Below(12) == 0;
    const int result = Copen(given->id.value, refuse ? -EIO : static_cast<int64_t>(kSize));
    Note(given, result);
    const auto live = world_.live.find(given->object);
    if (result == 0 && !refuse && live != world_.live.end()) live->second.has_size = true;
  }

  void ServeRead() {
    World::Given* given = PickGiven(false);
    if (given == nullptr) return;
    const auto live = world_.live.find(given->object);
    if (live == world_.live.end()) return;
    const int roll = dice_.Below(20);
    ByteRange range = given->range;
    if (roll == 0) range.end -= (range.size() - 1) / kPage / 2 * kPage;  // Some of it only.
    if (roll != 1) Write(given->object, range);
    if (roll == 2) return;
    const int result = world_.device->Complete(live->second.handle, given->id.value);
    Note(given, result);
    if (result == 0) ++totals.completions;
    // Exactly one completes it (I2).
    EXPECT_EQ(world_.device->Complete(live->second.handle, given->id.value), -EINVAL);
  }

  void Write(ObjectId id, ByteRange range) {
    const World::Live& live = world_.live.at(id);
    std::string bytes;
    for (uint64_t at = range.begin; at < range.end; at += kPage) {
      bytes.append(kPage, ByteOf(live.name, at / kPage));
    }
    const int64_t taken = world_.device->WriteObject(live.handle, ThreadId(), bytes, range.begin);
    if (!live.has_size && taken < 0) return;
    EXPECT_EQ(taken, static_cast<int64_t>(bytes.size()));
    // At an odd place nothing is moved (I20).
    EXPECT_EQ(world_.device->WriteObject(live.handle, ThreadId(), "x", range.begin + 511),
              -ENOBUFS);
  }

  // Answers that are not those of the request (I4, I16, I24).
  void Lie() {
    if (world_.given.empty()) return;
    auto it = world_.given.begin();
    std::advance(it, dice_.Below(static_cast<int>(world_.given.size())));
    World::Given& given = it->second;
    if (!given.is_open || given.is_answered) {
      EXPECT_EQ(Copen(given.id.value, static_cast<int64_t>(kSize)), -EINVAL);
    }
    for (const auto& [id, live] : world_.live) {
      if (!given.is_open && !given.is_answered && live.name == given.name) continue;
      EXPECT_EQ(world_.device->Complete(live.handle, given.id.value), -EINVAL);
    }
    EXPECT_EQ(Copen(given.id.value + 1'000'000, static_cast<int64_t>(kSize)), -EINVAL);
  }

  // Bytes that no READ asks for, and what is then present.
  void WriteAhead() {
    if (mine_.empty()) return;
    const ObjectId id = dice_.PickFrom(mine_);
    const auto live = world_.live.find(id);
    if (live == world_.live.end() || !live->second.has_size) return;
    const uint64_t page = static_cast<uint64_t>(dice_.Below(kPages));
    Write(id, {page * kPage, std::min(kSize, (page + 2) * kPage)});
    const auto hole = world_.device->Seek(live->second.handle, page * kPage, SEEK_HOLE);
    ASSERT_TRUE(hole.ok()) << hole.status().message();
    EXPECT_GE(*hole, std::min(kSize, (page + 1) * kPage)) << "what is present became absent (X7)";
  }

  void CloseOne() {
    if (mine_.empty()) return;
    Close(dice_.PickFrom(mine_));
  }
  void Close(ObjectId id) {
    std::erase(mine_, id);
    const auto live = world_.live.find(id);
    if (live == world_.live.end()) return;
    world_.device->CloseObject(live->second.handle);
    world_.live.erase(live);
  }

  // As by SIGKILL: another process has the device still.
  void Die() {
    while (!mine_.empty()) Close(mine_.back());
  }

  // The last copy of the device goes, with all its files; another program binds it anew.
  void CloseDevice() {
    world_.device->CloseAll();
    world_.live.clear();
    for (auto& [id, given] : world_.given) given.is_answered = true;
    world_.unanswered.clear();
    EXPECT_EQ(world_.cache->DescribeRequests().size(), 0u) << "requests outlive their device (I9)";
    world_.Bind();
  }

  World& world_;
  Dice dice_;
  std::vector<ObjectId> mine_;
};

// A process that reads, and is killed when that takes long.
class ReaderOfAll {
 public:
  ReaderOfAll(World* world, uint64_t seed) : world_(*world), dice_(seed) {}

  void Run(const std::atomic<bool>& stop) {
    while (!stop && !testing::Test::HasFailure()) {
      const int name = dice_.Below(kObjects);
      const std::optional<ObjectNumber> number = Find(name);
      for (int i = 0; number && i < 4; ++i) ReadSome(name, *number);
    }
  }

 private:
  std::optional<ObjectNumber> Find(int name) {
    const std::string cookie(1, static_cast<char>('0' + name));
    const auto info = Await<Result<ObjectInfo>>([this, &cookie](const auto& end) {
      return world_.cache->Acquire(world_.volume, cookie, {}, Freshness::kKnown, end);
    });
    return info && info->ok() ? std::optional((*info)->number) : std::nullopt;
  }

  void ReadSome(int name, ObjectNumber number) {
    const uint64_t begin = static_cast<uint64_t>(dice_.Below(static_cast<int>(kSize - 1)));
    const uint64_t length = 1 + static_cast<uint64_t>(dice_.Below(3 * kPage));
    const ByteRange range{begin, std::min(kSize, begin + length)};
    const auto read = Await<std::pair<Status, FileSlice>>([this, number, range](const auto& end) {
      return std::optional(
          world_.cache->Read(number, range, [end](const Status& status, const FileSlice& slice) {
            end({status, slice});
          }));
    });
    if (read && read->first.ok()) Compare(name, range, read->second);
  }

  // Asks the daemon, and each next one when it dies before it answers, as the kernel does.  Nothing
  // when the reader was killed, which it is after a while.
  template <typename Answer, typename Ask>
  std::optional<Answer> Await(const Ask& ask) {
    struct End {
      std::atomic<int> count = 0;
      std::promise<Answer> answer;
    };
    while (true) {
      const auto end = std::make_shared<End>();
      std::future<Answer> answer = end->answer.get_future();
      std::shared_lock lock(world_.life_mu);
      const int life = world_.life;
      const auto ticket = ask([end](const Answer& given) {
        const bool is_first = end->count.fetch_add(1) == 0;
        EXPECT_TRUE(is_first) << "a reader was answered twice (I2, I22)";
        if (is_first) end->answer.set_value(given);
      });
      lock.unlock();
      if (IsAnswered(answer, life, kPatience)) return answer.get();
      lock.lock();
      if (world_.life != life) continue;
      if (ticket && world_.cache->Withdraw(*ticket, Status(ECANCELED, "the reader was killed"))) {
        ++totals.killed_readers;
      }
      lock.unlock();
      if (IsAnswered(answer, life, std::chrono::seconds(20))) return answer.get();
      EXPECT_NE(world_.life, life) << "what a reader waits for has not ended (I10)";
      return std::nullopt;
    }
  }

  // False when that daemon dies first, or that time is over.
  template <typename Answer>
  bool IsAnswered(const std::future<Answer>& answer, int life, std::chrono::milliseconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (answer.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
      if (world_.life != life || std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  }

  void Compare(int name, ByteRange range, const FileSlice& slice) {
    std::string bytes(range.size(), '\0');
    ASSERT_EQ(pread(slice.file->get(), bytes.data(), bytes.size(), static_cast<off_t>(range.begin)),
              static_cast<ssize_t>(bytes.size()));
    std::string right;
    for (uint64_t at = range.begin; at < range.end; ++at) right += ByteOf(name, at / kPage);
    ++totals.right_bytes;
    EXPECT_TRUE(bytes == right) << "object " << name << " from byte " << range.begin << " on";
  }

  World& world_;
  Dice dice_;
};

void RunLife(uint64_t seed) {
  World world;
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers, programs;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&world, &stop, seed, i] {
      ReaderOfAll(&world, seed * 100 + 50 + static_cast<uint64_t>(i)).Run(stop);
    });
  }
  for (int i = 0; i < kPrograms; ++i) {
    programs.emplace_back(
        [&world, seed, i] { Program(&world, seed * 100 + static_cast<uint64_t>(i)).Run(); });
  }
  for (std::thread& program : programs) program.join();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  const std::lock_guard lock(world.mu);
  world.device->CloseAll();
  EXPECT_EQ(world.cache->DescribeRequests().size(), 0u);
}

class CachefilesDeviceModelTest : public testing::TestWithParam<int> {};

TEST_P(CachefilesDeviceModelTest, KeepsWhatTheKernelsInterfacePromises) {
  if (geteuid() != 0) GTEST_SKIP() << "to open the device needs CAP_SYS_ADMIN";
  FLAGS_minloglevel = google::GLOG_FATAL;  // Refused and withdrawn requests have a line each.
  const uint64_t seed = TestSeed();
  for (int i = 0; i < kLives && !HasFailure(); ++i) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " + " + std::to_string(i));
    RunLife(seed + static_cast<uint64_t>(i));
  }
  std::printf(
      "%d steps: %d OPENs, %d READs, %d completed; %d reads right, %d readers killed, %d "
      "restarts\n",
      totals.steps.load(), totals.opens.load(), totals.reads.load(), totals.completions.load(),
      totals.right_bytes.load(), totals.killed_readers.load(), totals.restarts.load());
  EXPECT_GT(totals.completions, kLives);
  EXPECT_GT(totals.right_bytes, kLives);
  EXPECT_GT(totals.killed_readers, 0);
  EXPECT_GT(totals.restarts, 0);
}

// A program that has no library knows an id modulo the size of a window.
TEST(CachefilesDeviceTest, AnAddressIsThatOfAnOldMessageWhichIsUnanswered) {
  if (geteuid() != 0) GTEST_SKIP() << "to open the device needs CAP_SYS_ADMIN";
  World world;
  world.device->Keep();
  constexpr MsgId kOld{5};
  constexpr uint32_t kNext = 5 + static_cast<uint32_t>(kIdWindowSize);  // Of the same address.
  DeviceRecord record;
  record.last_msg_id = kNext - 1;
  world.memory->PutDevice(record);
  ASSERT_TRUE(world.device->Resume({}).ok());
  const auto address = static_cast<uint32_t>(CachefilesDevice::AddressOf(kOld));
  EXPECT_EQ(world.device->IdOf(address), MsgId{kNext});
  world.memory->PutRequest(
      {.message = wire::ReadMessage{kOld, {}, {0, kPage}}, .object = {}, .data_fd = {}});
  EXPECT_EQ(world.device->IdOf(address), kOld);
  world.memory->EraseRequest(kOld);
  EXPECT_EQ(world.device->IdOf(address), MsgId{kNext});
}

// Ten tests of five lives: a sanitizer makes each of them slow.
INSTANTIATE_TEST_SUITE_P(Part, CachefilesDeviceModelTest, testing::Range(0, 10));

}  // namespace
}  // namespace fusefs
