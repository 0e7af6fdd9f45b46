#include "fusefs/server/request_log.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace fusefs {
namespace {

using cachecore::UniqueFd;

std::string Request(uint32_t opcode, uint64_t unique, size_t body = 16) {
  fuse_in_header header = {};
  header.len = static_cast<uint32_t>(sizeof(header) + body);
  header.opcode = opcode;
  header.unique = unique;
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) +
         std::string(body, 'b');
}

void Add(RequestLog* log, const std::string& request) { log->Add(request.data(), request.size()); }

// The log as the next daemon opens it.
std::unique_ptr<RequestLog> Next(const RequestLog& log) {
  return RequestLog::Open(UniqueFd(dup(log.memory()))).value();
}

std::vector<uint64_t> Uniques(const std::vector<std::string>& requests) {
  std::vector<uint64_t> uniques;
  for (const std::string& request : requests) {
    fuse_in_header header;
    std::memcpy(&header, request.data(), sizeof(header));
    EXPECT_EQ(header.len, request.size());
    uniques.push_back(header.unique);
  }
  return uniques;
}

TEST(RequestLogTest, WhatWasNotRemovedIsFoundInTheOrderItWasAsked) {
  const auto log = RequestLog::Open({}).value();
  for (const uint64_t unique : {10u, 2u, 8u, 4u, 6u}) Add(log.get(), Request(FUSE_READ, unique));
  log->Remove(8);
  log->Remove(12);                         // Never seen.
  Add(log.get(), Request(FUSE_READ, 14));  // Takes the place of 8.
  const auto next = Next(*log);
  EXPECT_EQ(Uniques(next->TakeUnanswered()), (std::vector<uint64_t>{2, 4, 6, 10, 14}));
  // Taking them does not answer them: a daemon may die while it takes up what another left.
  EXPECT_EQ(Uniques(Next(*next)->TakeUnanswered()), (std::vector<uint64_t>{2, 4, 6, 10, 14}));
}

TEST(RequestLogTest, ARequestThatWasOnlyReceivedIsFound) {
  const auto log = RequestLog::Open({}).value();
  Add(log.get(), Request(FUSE_READ, 2));
  const std::string received = Request(FUSE_LOOKUP, 4, 255);
  std::memcpy(log->Area(3), received.data(), received.size());
  const std::string kept = Request(FUSE_READ, 2);
  std::memcpy(log->Area(1), kept.data(), kept.size());  // Also in a slot: found once.
  auto next = Next(*log);
  EXPECT_EQ(next->TakeUnanswered(), (std::vector<std::string>{kept, received}));
  // It is in a slot now: the area may be received into.
  std::memset(next->Area(3), 0, received.size());
  std::memset(next->Area(1), 0, kept.size());
  next = Next(*next);
  EXPECT_EQ(next->TakeUnanswered(), (std::vector<std::string>{kept, received}));
}

TEST(RequestLogTest, MemoryInUseIsCheckedWithoutAChange) {
  const auto log = RequestLog::Open({}).value();
  Add(log.get(), Request(FUSE_READ, 2));
  EXPECT_TRUE(RequestLog::CheckLayout(log->memory()).ok());
  EXPECT_EQ(Uniques(Next(*log)->TakeUnanswered()), (std::vector<uint64_t>{2}));
  const uint64_t other = 7;
  ASSERT_EQ(pwrite(log->memory(), &other, sizeof other, 0), static_cast<ssize_t>(sizeof other));
  EXPECT_EQ(RequestLog::CheckLayout(log->memory()).error(), EPROTO);
  const UniqueFd small(memfd_create("small", MFD_CLOEXEC));
  EXPECT_EQ(RequestLog::CheckLayout(small.get()).error(), EPROTO);
}

TEST(RequestLogTest, WhatHasNoAnswerIsNotKept) {
  const auto log = RequestLog::Open({}).value();
  uint64_t unique = 2;
  for (const uint32_t opcode : {FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT, FUSE_INIT}) {
    Add(log.get(), Request(opcode, unique));
    const std::string received = Request(opcode, unique + 2);
    std::memcpy(log->Area(0), received.data(), received.size());
    EXPECT_TRUE(Next(*log)->TakeUnanswered().empty()) << opcode;
    unique += 4;
  }
}

TEST(RequestLogTest, ALongRequestIsNotKeptAndHarmsNoOther) {
  const auto log = RequestLog::Open({}).value();
  Add(log.get(), Request(FUSE_READ, 2, 2000));
  Add(log.get(), Request(FUSE_READ, 4, 996 - sizeof(fuse_in_header)));
  EXPECT_EQ(Uniques(Next(*log)->TakeUnanswered()), (std::vector<uint64_t>{4}));
  log->Remove(2);
}

TEST(RequestLogTest, AFullTableKeepsWhatItHasAndHasRoomAgainLater) {
  const auto log = RequestLog::Open({}).value();
  for (uint64_t unique = 1; unique <= 65537; ++unique) Add(log.get(), Request(FUSE_READ, unique));
  EXPECT_EQ(Next(*log)->TakeUnanswered().size(), 65536u);
  log->Remove(1);
  Add(log.get(), Request(FUSE_READ, 70000));
  EXPECT_EQ(Uniques(Next(*log)->TakeUnanswered()).back(), 70000u);
}

TEST(RequestLogTest, ForeignMemoryIsRefused) {
  UniqueFd small(memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(RequestLog::Open(std::move(small)).status().error(), EPROTO);
  const auto log = RequestLog::Open({}).value();
  const char other = 'x';
  ASSERT_EQ(pwrite(log->memory(), &other, 1, 0), 1);
  EXPECT_EQ(RequestLog::Open(UniqueFd(dup(log->memory()))).status().error(), EPROTO);
}

TEST(RequestLogTest, ThreadsAddAndRemoveAtOnce) {
  const auto log = RequestLog::Open({}).value();
  std::vector<std::thread> threads;
  for (uint64_t first = 1; first <= 4; ++first) {
    threads.emplace_back([&log, first] {
      for (uint64_t i = 0; i < 5000; ++i) {
        Add(log.get(), Request(FUSE_READ, first + 4 * i));
        if (i >= 10) log->Remove(first + 4 * (i - 10));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Next(*log)->TakeUnanswered().size(), 40u);
}

}  // namespace
}  // namespace fusefs
