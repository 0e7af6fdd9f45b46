// CacheRig: a Cache on a real RocksDB and real files in a temporary directory, with the test as
// fetcher.

#ifndef TESTS_CACHECORE_CACHE_CACHE_RIG_H_
#define TESTS_CACHECORE_CACHE_CACHE_RIG_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cachecore/cache/cache.h"
#include "cachecore/store/rocksdb_metadata_store.h"

namespace cachecore {

class CacheRig {
 public:
  explicit CacheRig(CacheOptions options = {}, uint64_t read_ahead_max = 0) : options_(options) {
    options_.engine.read_ahead_max = read_ahead_max;
    std::string pattern = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
    directory = mkdtemp(pattern.data());
    Open();
  }
  ~CacheRig() {
    cache.reset();
    std::filesystem::remove_all(directory);
  }

  // A new life of the daemon on the same directory.
  void Reopen(const std::string& new_boot_id = "") {
    cache.reset();
    if (!new_boot_id.empty()) boot_id = new_boot_id;
    Open();
  }
  void Open() {
    auto store = OpenRocksDbMetadataStore(directory + "/db", boot_id);
    ASSERT_TRUE(store.ok()) << store.status().message();
    auto data = DataStore::Open(directory + "/data");
    ASSERT_TRUE(data.ok()) << data.status().message();
    std::unique_ptr<MetadataStore> used = std::move(store).value();
    if (wrap_store) used = wrap_store(std::move(used));
    auto opened =
        Cache::Open(options_, Clock::Monotonic(), std::move(used), std::move(data).value(), [] {});
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    cache = std::move(opened).value();
    ASSERT_TRUE(cache->device().Attach().ok());
  }

  std::optional<wire::OpenMessage> NextOpen() {
    auto message = cache->device().NextMessage();
    if (!message || !std::holds_alternative<wire::OpenMessage>(message->message)) {
      return std::nullopt;
    }
    data_fd = std::move(message->data_fd);
    return std::get<wire::OpenMessage>(message->message);
  }
  std::optional<wire::ReadMessage> NextRead() {
    auto message = cache->device().NextMessage();
    if (!message || !std::holds_alternative<wire::ReadMessage>(message->message)) {
      return std::nullopt;
    }
    return std::get<wire::ReadMessage>(message->message);
  }
  int32_t Execute(const wire::Command& command) {
    return cache->device().Execute({Result<wire::Command>(command)}).at(0);
  }
  // Opens the next OPEN with `size`; returns the live id.
  ObjectId AnswerOpen(uint64_t size, const std::string& attr = "") {
    const auto open = NextOpen();
    EXPECT_TRUE(open.has_value());
    if (!open) return {};
    if (!attr.empty()) Execute(wire::AttrCommand{open->object_id, attr});
    Execute(wire::FactsCommand{open->object_id, facts});
    open_result = Execute(wire::CopenCommand{open->msg_id, static_cast<int64_t>(size), 0});
    EXPECT_TRUE(open_result == 0 || open->is_check) << open_result;
    return open->object_id;
  }
  // Looks "volume"/`cookie` up, as an object of `size` if it is new.
  Result<ObjectInfo> Acquire(uint64_t size, bool replace_stale = false) {
    const ObjectNumber volume = *cache->AddVolume("volume");
    std::optional<Result<ObjectInfo>> answer;
    cache->Acquire({volume, "volume"}, cookie, {},
                   replace_stale ? Freshness::kReplace : Freshness::kKnown,
                   [&](const Result<ObjectInfo>& info) { answer.emplace(info); });
    if (!answer) live = AnswerOpen(size, attr_of_open);
    return answer ? *answer : Result<ObjectInfo>(Status(EAGAIN, "no answer"));
  }
  void Write(ByteRange range, char byte) {
    const std::string bytes(range.size(), byte);
    ASSERT_EQ(pwrite(data_fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(range.begin)),
              static_cast<ssize_t>(bytes.size()));
  }
  bool IsPresent(ObjectNumber number, ByteRange range) {
    const auto slice = cache->TryRead(number, range);
    return slice.ok() && slice->has_value();
  }

  // What the next life's store is put into.
  std::function<std::unique_ptr<MetadataStore>(std::unique_ptr<MetadataStore>)> wrap_store;
  std::string cookie = "object";
  std::string attr_of_open;  // What the next OPENs are answered with, "" for none.
  ObjectFacts facts;         // The same.
  int32_t open_result = 0;
  std::string directory;
  std::string boot_id = "00000000-0000-4000-8000-000000000001";
  std::unique_ptr<Cache> cache;
  UniqueFd data_fd;
  ObjectId live;

 private:
  CacheOptions options_;
};

}  // namespace cachecore

#endif  // TESTS_CACHECORE_CACHE_CACHE_RIG_H_
