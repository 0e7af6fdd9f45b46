#include "fetcher/engine/origin_spells.h"

#include <gtest/gtest.h>

#include "tests/cachecore/base/captured_log.h"

namespace fetcher {
namespace {

using std::chrono::seconds;

TEST(OriginSpellsTest, TwoLinesForASpellOfAllObjectsOfAPlace) {
  cachecore::CapturedLog log;
  OriginSpells spells;
  spells.Served("https://a.example/one", seconds(0));
  for (int i = 0; i < 5; ++i) {
    spells.Failed("https://a.example/one", "no route", seconds(i));
    spells.Failed("https://a.example/two", "no route", seconds(i));
    spells.Served("https://a.example/one", seconds(i));
    spells.Served("https://b.example/one", seconds(i));
  }
  EXPECT_EQ(log.Count("origin https://a.example fails: no route"), 1);
  EXPECT_EQ(log.Count("again"), 0);
  spells.Served("https://a.example/two", seconds(4) + OriginSpells::kCalm);
  EXPECT_EQ(log.Count("origin https://a.example serves again; 10 requests failed in 14 s"), 1);
  spells.Failed("https://a.example/one", "it is slow", seconds(20));
  EXPECT_EQ(log.Count("origin https://a.example fails: it is slow"), 1);
}

TEST(OriginSpellsTest, AnObjectThatIsBrokenHidesNoOutage) {
  cachecore::CapturedLog log;
  OriginSpells spells;
  const std::string broken = "https://a.example/broken", other = "https://a.example/other";
  int second = 0;
  for (; second < 60; ++second) {
    spells.Failed(broken, "404", seconds(second));
    spells.Served(other, seconds(second));
  }
  EXPECT_EQ(log.Count("fails"), 1);
  for (; second < 120; ++second) spells.Failed(other, "no route", seconds(second));
  EXPECT_EQ(log.Count("fails: no route"), 1);
  spells.Served(other, seconds(second) + OriginSpells::kCalm);
  EXPECT_EQ(log.Count("serves again"), 1);
}

TEST(OriginSpellsTest, WhatIsNoUrlIsAPlaceOfItsOwn) {
  cachecore::CapturedLog log;
  OriginSpells spells;
  spells.Failed("/images/one", "gone\nE0000 forged", seconds(0));
  EXPECT_EQ(log.Count("origin /images/one fails: gone"), 1);
  EXPECT_EQ(log.Count("\n"), 0);
}

}  // namespace
}  // namespace fetcher
