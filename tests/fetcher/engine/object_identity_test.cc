// ObjectIdentity: which answers of an origin are about the object that is open.

#include "fetcher/engine/object_identity.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace fetcher {
namespace {

constexpr char kImageUrl[] = "http://h/image";

ObjectVersion Version(uint64_t size_bytes, const std::string& kind, const std::string& value) {
  return {size_bytes, {kind, value}};
}

bool IsAnyUsed(const std::string&) { return true; }

std::optional<Failure> TryPin(ObjectIdentity* identity, const std::string& origin,
                              const ObjectVersion& version, bool is_open) {
  auto pinned = identity->PinOrigin(origin, kImageUrl, version, is_open, IsAnyUsed);
  if (auto* failure = std::get_if<Failure>(&pinned)) return *failure;
  return std::nullopt;
}

TEST(ObjectIdentityTest, TheFirstPinGivesTheSizeAndTheTextToStore) {
  ObjectIdentity identity({});
  const auto text =
      identity.PinOrigin("o", kImageUrl, Version(10, "etag", "x"), /*is_open=*/false, IsAnyUsed);
  EXPECT_EQ(std::get<std::string>(text), R"({"pins":{"o":{"etag":"x"}},"size":10})");
  EXPECT_EQ(identity.size_bytes(), 10u);
  EXPECT_TRUE(identity.IsPinned("o"));
  EXPECT_FALSE(identity.IsPinned("other"));
  EXPECT_EQ(identity.VersionAt("o").pin, (Pin{"etag", "x"}));
}

TEST(ObjectIdentityTest, AnotherOriginOfAnOpenObjectMustHaveItsSize) {
  ObjectIdentity identity({});
  ASSERT_FALSE(TryPin(&identity, "o", Version(10, "etag", "x"), false));
  const auto failure = TryPin(&identity, "other", Version(11, "etag", "y"), true);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->kind, Failure::Kind::kChanged);
  EXPECT_EQ(failure->cause, "http://h/image: changed since it was mounted (size was 10, is 11)");
  EXPECT_FALSE(identity.IsPinned("other"));
  EXPECT_FALSE(TryPin(&identity, "other", Version(10, "etag", "y"), true));
}

TEST(ObjectIdentityTest, PinsOfUnusedOriginsAreForgotten) {
  ObjectIdentity identity({});
  ASSERT_FALSE(TryPin(&identity, "old", Version(10, "etag", "x"), false));
  (void)identity.PinOrigin("new", kImageUrl, Version(10, "etag", "y"), true,
                           [](const std::string& name) { return name != "old"; });
  EXPECT_FALSE(identity.IsPinned("old"));
}

TEST(ObjectIdentityTest, APinThatCannotBeStoredIsRefused) {
  ObjectIdentity identity({});
  const auto failure =
      TryPin(&identity, "o", Version(10, "etag", std::string(Pin::kMaxValueSize * 8, 'x')), false);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->kind, Failure::Kind::kRefused);
  EXPECT_FALSE(identity.IsPinned("o"));
}

TEST(ObjectIdentityTest, WhatIsStoredCountsOnceItIsConfirmed) {
  ObjectIdentity identity({});
  identity.TakeUnchecked({10, {{"o", {"etag", "x"}}}});
  EXPECT_TRUE(identity.is_unchecked());
  EXPECT_FALSE(identity.DiffersFromUnchecked("o", kImageUrl, Version(10, "etag", "x")));
  // An origin that was not pinned can tell by the size only.
  EXPECT_FALSE(identity.DiffersFromUnchecked("other", kImageUrl, Version(10, "etag", "y")));
  EXPECT_TRUE(identity.DiffersFromUnchecked("other", kImageUrl, Version(11, "etag", "y")));
  const auto failure = identity.DiffersFromUnchecked("o", kImageUrl, Version(10, "etag", "y"));
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->error, ESTALE);
  EXPECT_EQ(failure->cause, "http://h/image: changed since it was fetched");
  identity.Confirm();
  EXPECT_FALSE(identity.is_unchecked());
  EXPECT_EQ(identity.size_bytes(), 10u);
  EXPECT_TRUE(identity.IsPinned("o"));
}

TEST(ObjectIdentityTest, ADigestNamesTheObjectWhateverItsOriginsSay) {
  ObjectIdentity plain({});
  ASSERT_FALSE(TryPin(&plain, "o", Version(10, "etag", "x"), false));
  EXPECT_FALSE(plain.IsNamedByDigest());
  ASSERT_FALSE(TryPin(&plain, "registry", Version(10, "digest", "sha256:1"), true));
  EXPECT_TRUE(plain.IsNamedByDigest());

  ObjectIdentity verified(cachecore::Digest{});
  EXPECT_TRUE(verified.IsNamedByDigest());
  // Any version may bring its blocks: each is checked.
  EXPECT_EQ(verified.VersionAt("o").pin, Pin{});
}

TEST(ObjectIdentityTest, AWeakOrMissingValidatorIsSaidToBeNone) {
  const ObjectIdentity plain({});
  EXPECT_TRUE(plain.FactsOf(Version(1, "etag", "x")).has_validator);
  EXPECT_FALSE(plain.FactsOf(Version(1, "weak_etag", "x")).has_validator);
  EXPECT_FALSE(plain.FactsOf(Version(1, "", "")).has_validator);
  EXPECT_TRUE(ObjectIdentity(cachecore::Digest{}).FactsOf(Version(1, "", "")).has_validator);
}

}  // namespace
}  // namespace fetcher
