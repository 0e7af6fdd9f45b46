#include "cachecore/engine/request_table.h"

#include <gtest/gtest.h>

namespace cachecore {
namespace {

Request* AddNew(RequestTable* table, uint32_t id, bool background = false) {
  Request request;
  request.id = MsgId{id};
  request.background = background;
  Request* added = table->Add(std::move(request));
  table->Publish(MsgId{id});
  return added;
}

uint32_t Deliver(RequestTable* table) {
  Request* request = table->Select([](Request&) { return true; });
  if (request == nullptr) return UINT32_MAX;
  table->MarkDelivered(request, Generation{1});
  return request->id.value;
}

TEST(RequestTableTest, TheCursorWrapsAroundInIdOrder) {
  RequestTable table;
  for (const uint32_t id : {4u, 0u, 2u}) AddNew(&table, id);
  EXPECT_EQ(Deliver(&table), 0u);
  EXPECT_EQ(Deliver(&table), 2u);
  AddNew(&table, 1);  // Behind the cursor: its turn comes after the wrap.
  EXPECT_EQ(Deliver(&table), 4u);
  EXPECT_EQ(Deliver(&table), 1u);
  EXPECT_EQ(Deliver(&table), UINT32_MAX);
}

TEST(RequestTableTest, APassedOverRequestKeepsItsMarkAndDoesNotMoveTheCursor) {
  RequestTable table;
  AddNew(&table, 0);
  AddNew(&table, 1);
  Request* request = table.Select([](Request& candidate) { return candidate.id.value == 1; });
  table.MarkDelivered(request, Generation{1});
  EXPECT_TRUE(table.IsNew(MsgId{0}));
  EXPECT_EQ(Deliver(&table), 0u);
}

TEST(RequestTableTest, RestoreMarksWhatWasDeliveredNewAgain) {
  RequestTable table;
  AddNew(&table, 0);
  AddNew(&table, 1);
  Deliver(&table);
  Deliver(&table);
  EXPECT_FALSE(table.HasNew());
  table.Restore([](const Request& request) { return request.id.value == 1; });
  EXPECT_EQ(Deliver(&table), 1u);
  EXPECT_EQ(Deliver(&table), UINT32_MAX);
}

TEST(RequestTableTest, OnlyOneTakesARequest) {
  RequestTable table;
  AddNew(&table, 3);
  EXPECT_NE(table.Take(MsgId{3}), nullptr);
  EXPECT_EQ(table.Take(MsgId{3}), nullptr);
  EXPECT_FALSE(table.HasNew());
}

TEST(RequestTableTest, WhatIsNotPublishedIsNotDelivered) {
  RequestTable table;
  Request request;
  request.id = MsgId{0};
  table.Add(std::move(request));
  table.Restore([](const Request&) { return true; });
  EXPECT_EQ(Deliver(&table), UINT32_MAX);
}

TEST(RequestTableTest, DemandGoesBeforeBackgroundAndAJoinedRequestIsDemand) {
  RequestTable table;
  Request* ahead = AddNew(&table, 0, /*background=*/true);
  AddNew(&table, 1, /*background=*/true);
  AddNew(&table, 2);
  EXPECT_EQ(Deliver(&table), 2u);
  table.Promote(ahead);
  EXPECT_EQ(Deliver(&table), 0u);
  EXPECT_EQ(Deliver(&table), 1u);
}

}  // namespace
}  // namespace cachecore
