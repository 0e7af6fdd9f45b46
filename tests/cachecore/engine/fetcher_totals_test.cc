#include "cachecore/engine/fetcher_totals.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

namespace cachecore {
namespace {

int Take(FetcherTotals* totals, const std::string& name, std::vector<std::string> labels) {
  return totals->Take({name, 1, std::move(labels)});
}

TEST(FetcherTotalsTest, HostsCodesAndCausesAreBounded) {
  const auto totals = Totals::Open(UniqueFd());
  for (int life = 0; life < 2; ++life) {  // The next daemon knows those of the last one.
    FetcherTotals taken(totals->get());
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(Take(&taken, "requests", {"h" + std::to_string(i) + ".example:8080", "206"}), 0);
      EXPECT_EQ(Take(&taken, "requests", {"h0.example:8080", std::to_string(400 + i)}), 0);
      EXPECT_EQ(Take(&taken, "retries", {std::string(1 + i, 'x')}), 0);
    }
  }
  EXPECT_EQ((*totals)->Find("origin_requests h63.example:8080 206").value(), 2u);
  EXPECT_EQ((*totals)->Find("origin_requests other 206").value(), 2u * (100 - 64));
  EXPECT_EQ((*totals)->Find("origin_requests h0.example:8080 414").value(), 2u);
  EXPECT_EQ((*totals)->Find("origin_requests h0.example:8080 other").value(), 2u * (100 - 15));
  EXPECT_EQ((*totals)->Find("retries other").value(), 2u * (100 - 32));
}

TEST(FetcherTotalsTest, WhatIsNoCountIsRefused) {
  const auto totals = Totals::Open(UniqueFd());
  FetcherTotals taken(totals->get());
  EXPECT_EQ(Take(&taken, "reads", {}), -EINVAL);
  EXPECT_EQ(Take(&taken, "requests", {"a"}), -EINVAL);
  EXPECT_EQ(Take(&taken, "requests", {"a b", "200"}), -EINVAL);
  EXPECT_EQ(Take(&taken, "requests", {"a", "20"}), -EINVAL);
  EXPECT_EQ(Take(&taken, "requests", {"a", "2000"}), -EINVAL);
  EXPECT_EQ(Take(&taken, "bytes", {""}), -EINVAL);
  EXPECT_EQ(Take(&taken, "retries", {"A"}), -EINVAL);
  EXPECT_TRUE((*totals)->All().empty());
  EXPECT_EQ(Take(&taken, "requests", {"[::1]:80", "none"}), 0);
  FetcherTotals nowhere(nullptr);
  EXPECT_EQ(Take(&nowhere, "bytes", {"a"}), 0);
}

}  // namespace
}  // namespace cachecore
