#include "host/notify/notify_message.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace host {
namespace {

using namespace std::string_view_literals;

NotifyMessage Parsed(std::string_view text) {
  auto message = ParseNotifyMessage(text);
  EXPECT_TRUE(message.has_value()) << text;
  return message.value_or(NotifyMessage{});
}

TEST(NotifyMessageTest, EveryFieldOfTheProtocolIsRead) {
  const std::string text =
      "READY=1\nSTATUS=all well\nWATCHDOG=1\nWATCHDOG_USEC=250000\nFDSTORE=1\nFDNAME=fuse\n"
      "FDPOLL=0\nMAINPID=1\n";
  NotifyMessage message = Parsed(text);
  EXPECT_TRUE(message.ready);
  EXPECT_FALSE(message.stopping);
  EXPECT_TRUE(message.watchdog_ping);
  EXPECT_EQ(message.watchdog_usec, 250000u);
  EXPECT_EQ(message.status, "all well");
  EXPECT_TRUE(message.fd_store);
  EXPECT_FALSE(message.fd_store_remove);
  EXPECT_EQ(message.fd_name, "fuse");
  EXPECT_FALSE(message.fd_poll);
  EXPECT_FALSE(message.barrier);
}

TEST(NotifyMessageTest, WhatIsNotSaidIsNotAssumed) {
  NotifyMessage message = Parsed("X_OURS=1");
  EXPECT_FALSE(message.ready || message.stopping || message.watchdog_ping || message.barrier);
  EXPECT_FALSE(message.fd_store || message.fd_store_remove || message.watchdog_trigger);
  EXPECT_TRUE(message.fd_poll);
  EXPECT_FALSE(message.fd_name || message.status || message.watchdog_usec);
}

TEST(NotifyMessageTest, OnlyTheExactValueCounts) {
  NotifyMessage message = Parsed("READY=10\nSTOPPING=\nFDSTORE=0\nFDPOLL=1\nWATCHDOG=2\n ready=1");
  EXPECT_FALSE(message.ready || message.stopping || message.fd_store || message.watchdog_ping);
  EXPECT_TRUE(message.fd_poll);
}

TEST(NotifyMessageTest, TheFirstOfARepeatedKeyCountsAndTheLastOfReadyAndStopping) {
  NotifyMessage message = Parsed("FDNAME=a\nFDNAME=b\nSTATUS=one\nSTATUS=two\nREADY=1\nSTOPPING=1");
  EXPECT_EQ(message.fd_name, "a");
  EXPECT_EQ(message.status, "one");
  EXPECT_TRUE(message.stopping);
  EXPECT_FALSE(message.ready);
}

TEST(NotifyMessageTest, AnInvalidFirstNameIsNotReplacedByALaterOne) {
  EXPECT_FALSE(Parsed("FDSTORE=1\nFDNAME=a:b\nFDNAME=good").fd_name);
}

TEST(NotifyMessageTest, CarriageReturnsAndEmptyLinesSeparateToo) {
  NotifyMessage message = Parsed("\r\n\nREADY=1\r\n\r\nSTATUS=x\r");
  EXPECT_TRUE(message.ready);
  EXPECT_EQ(message.status, "x");
}

TEST(NotifyMessageTest, ABarrierVoidsTheRestOfItsDatagram) {
  NotifyMessage message = Parsed("READY=1\nBARRIER=1\nFDSTORE=1\nFDNAME=x");
  EXPECT_TRUE(message.barrier);
  EXPECT_FALSE(message.ready || message.fd_store || message.fd_name);
}

TEST(NotifyMessageTest, TheWatchdogCanBeTriggered) {
  NotifyMessage message = Parsed("WATCHDOG=trigger");
  EXPECT_TRUE(message.watchdog_trigger);
  EXPECT_FALSE(message.watchdog_ping);
}

TEST(NotifyMessageTest, WatchdogTimesThatAreNoNumbersAreIgnored) {
  EXPECT_FALSE(Parsed("WATCHDOG_USEC=").watchdog_usec);
  EXPECT_FALSE(Parsed("WATCHDOG_USEC=-1").watchdog_usec);
  EXPECT_FALSE(Parsed("WATCHDOG_USEC=1s").watchdog_usec);
  EXPECT_FALSE(Parsed("WATCHDOG_USEC=99999999999999999999").watchdog_usec);
  EXPECT_EQ(Parsed("WATCHDOG_USEC=18446744073709551615").watchdog_usec, UINT64_MAX);
}

TEST(NotifyMessageTest, ATextWithANulInsideIsNoMessageButOneAtItsEndIsAllowed) {
  EXPECT_FALSE(ParseNotifyMessage("READY=1\0STOPPING=1"sv));
  EXPECT_FALSE(ParseNotifyMessage("\0"sv));
  EXPECT_TRUE(Parsed("READY=1\0"sv).ready);
}

TEST(NotifyMessageTest, EmptyAndOversizedDatagramsAreNoMessages) {
  EXPECT_FALSE(ParseNotifyMessage(""));
  EXPECT_TRUE(ParseNotifyMessage(std::string(kNotifyDatagramBytesMax, 'x')));
  EXPECT_FALSE(ParseNotifyMessage(std::string(kNotifyDatagramBytesMax + 1, 'x')));
}

TEST(NotifyMessageTest, NamesAreShortPrintableAsciiWithoutColon) {
  EXPECT_TRUE(IsValidFdName("fuse-session 1/\"x\""));
  EXPECT_TRUE(IsValidFdName(std::string(255, 'n')));
  EXPECT_FALSE(IsValidFdName(std::string(256, 'n')));
  EXPECT_FALSE(IsValidFdName("a:b"));
  EXPECT_FALSE(IsValidFdName("a\tb"));
  EXPECT_FALSE(IsValidFdName("a\x7f"));
  EXPECT_FALSE(IsValidFdName("na\xc3\xafve"));
}

TEST(NotifyMessageTest, AnyBytesGiveAMessageThatPointsIntoThemOrNone) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const std::string_view pieces[] = {
      "READY=1", "FDNAME=", "FDSTORE=1", "\n",     "\r",         "=", "STATUS=",   ":",
      "\xff",    "x",       "WATCHDOG",  "_USEC=", "STOPPING=1", "9", "BARRIER=1", "\0"sv};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto i = random() % 12; i > 0; --i) text += pieces[random() % std::size(pieces)];
    auto message = ParseNotifyMessage(text);
    if (!message) continue;
    ASSERT_FALSE(message->ready && message->stopping);
    for (auto view : {message->fd_name, message->status}) {
      if (!view) continue;
      ASSERT_GE(view->data(), text.data());
      ASSERT_LE(view->data() + view->size(), text.data() + text.size());
      ASSERT_EQ(view->find_first_of("\r\n\0"sv), std::string_view::npos);
    }
    if (message->fd_name) {
      ASSERT_TRUE(IsValidFdName(*message->fd_name));
    }
  }
}

}  // namespace
}  // namespace host
