#include "cachecore/environment/descriptor_table.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "cachecore/system/process.h"

namespace cachecore {
namespace {

UniqueFd File(const std::string& content) {
  UniqueFd file(memfd_create("stored", MFD_CLOEXEC));
  EXPECT_EQ(write(file.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return file;
}

std::string ContentOf(const UniqueFd& fd) {
  char text[64];
  const ssize_t size = pread(fd.get(), text, sizeof text, 0);
  return {text, static_cast<size_t>(std::max<ssize_t>(size, 0))};
}

Result<DescriptorTable::Copies> OwnCopies() {
  const PinnedProcess self = PinProcess(getpid());
  return DescriptorTable::CopyFrom(self.pid, self.pidfd);
}

TEST(DescriptorTableTest, WhatWasPutIsFoundAndWhatWasRemovedIsNot) {
  const UniqueFd first = File("first"), second = File("second"), third = File("third");
  auto table = DescriptorTable::Create({{.name = "a", .fd = first.get()}});
  ASSERT_TRUE(table.ok()) << table.status().message();
  ASSERT_TRUE((*table)->Put({.name = "b", .fd = second.get(), .is_polled = true}).ok());
  ASSERT_TRUE((*table)->Put({.name = "c", .fd = third.get()}).ok());
  (*table)->Remove("a");
  const auto found = OwnCopies();
  ASSERT_TRUE(found.ok()) << found.status().message();
  ASSERT_EQ(found->copies.size(), 2u);
  EXPECT_EQ(found->copies[0].name, "b");
  EXPECT_TRUE(found->copies[0].is_polled);
  EXPECT_EQ(ContentOf(found->copies[0].fd), "second");
  EXPECT_EQ(found->copies[1].name, "c");
  EXPECT_FALSE(found->copies[1].is_polled);
  EXPECT_FALSE(found->is_ready);
  (*table)->SetReady();
  EXPECT_TRUE(OwnCopies()->is_ready);
}

TEST(DescriptorTableTest, AProcessThatIsStoppedOrHasNoneOrIsGoneIsAnsweredFor) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const UniqueFd file = File("of the child");
    const auto table = DescriptorTable::Create({{.name = "x", .fd = file.get()}});
    (void)!write(ready[1], "", 1);
    for (;;) pause();
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  kill(child, SIGSTOP);
  const PinnedProcess pinned = PinProcess(child);
  const auto found = DescriptorTable::CopyFrom(child, pinned.pidfd);
  ASSERT_TRUE(found.ok()) << found.status().message();
  ASSERT_EQ(found->copies.size(), 1u);
  EXPECT_EQ(ContentOf(found->copies[0].fd), "of the child");
  EXPECT_EQ(OwnCopies().status().error(), ENOENT);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(DescriptorTable::CopyFrom(child, pinned.pidfd).ok());
}

TEST(DescriptorTableTest, OneThatIsFullRefusesMoreUntilSomeAreRemoved) {
  const UniqueFd file = File("file");
  auto table = DescriptorTable::Create({});
  ASSERT_TRUE(table.ok()) << table.status().message();
  for (size_t i = 0; i < DescriptorTable::kEntriesMax; ++i) {
    ASSERT_TRUE((*table)->Put({.name = "many", .fd = file.get()}).ok());
  }
  EXPECT_EQ((*table)->Put({.name = "one", .fd = file.get()}).error(), ENOSPC);
  (*table)->Remove("many");
  EXPECT_TRUE((*table)->Put({.name = std::string(255, 'n'), .fd = file.get()}).ok());
  EXPECT_EQ((*table)->Put({.name = std::string(256, 'n'), .fd = file.get()}).error(), ENOSPC);
}

}  // namespace
}  // namespace cachecore
