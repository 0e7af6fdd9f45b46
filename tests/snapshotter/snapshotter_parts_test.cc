#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "snapshotter/filter.h"
#include "snapshotter/flags.h"
#include "snapshotter/image_mounter.h"
#include "snapshotter/layer_labels.h"
#include "snapshotter/snapshot_record.h"
#include "tests/host/instance/temporary_directory.h"

namespace snapshotter {
namespace {

using cachecore::Status;

SnapshotRecord Sample() {
  SnapshotRecord record;
  record.id = 7;
  record.name = "k8s.io/3/extract-12 sha256:ab";
  record.parent = "k8s.io/2/\"odd\"";
  record.kind = Kind::kCommitted;
  record.content = Content::kImage;
  record.labels = {{"containerd.io/snapshot.ref", "sha256:ab"}, {"x", "1"}};
  record.created_ns = 1;
  record.updated_ns = 2;
  record.usage = {4096, 1};
  record.reference = "sha256:ab";
  record.image = {"r:5000", "os/d", "sha256:1", "sha256:2", "sha256:3"};
  return record;
}

bool Matches(const std::vector<std::string>& filters, const SnapshotRecord& record) {
  const auto filter = Filter::Parse(filters);
  EXPECT_TRUE(filter.ok()) << filter.status().message();
  return filter.ok() && filter->Matches(record);
}

TEST(FilterTest, EverySelectorOfOneOfTheFiltersMustHold) {
  const SnapshotRecord record = Sample();
  EXPECT_TRUE(Matches({}, record));
  EXPECT_TRUE(Matches({""}, record));
  EXPECT_TRUE(Matches({"kind==committed"}, record));
  EXPECT_TRUE(Matches({"kind==committed,labels.x==1"}, record));
  EXPECT_FALSE(Matches({"kind==committed,labels.x==2"}, record));
  EXPECT_TRUE(Matches({"kind==active", "labels.x"}, record));
  EXPECT_FALSE(Matches({"labels.y"}, record));
  EXPECT_TRUE(Matches({"labels.y!=1"}, record));
  EXPECT_FALSE(Matches({"labels.x!=1"}, record));
  EXPECT_TRUE(Matches({"labels.containerd.\"io/snapshot\".ref==sha256:ab"}, record));
}

TEST(FilterTest, WhatContainerdAsksForARemoteLayerIsUnderstood) {
  EXPECT_TRUE(
      Matches({"labels.\"containerd.io/snapshot.ref\"==sha256:ab,parent==\"k8s.io/2/\\\"odd\\\"\""},
              Sample()));
  EXPECT_TRUE(Matches({"name==\"k8s.io/3/extract-12 sha256:ab\""}, Sample()));
}

TEST(FilterTest, ExpressionsAreThoseOfGo) {
  SnapshotRecord record = Sample();
  record.name = "k8s.io/3/extract-12 sha256:ab";
  EXPECT_TRUE(Matches({"name~=extract-[0-9]+"}, record));
  EXPECT_TRUE(Matches({"name~=\"extract-\\\\d+ \""}, record));
  EXPECT_TRUE(Matches({"name~=/io\\/3\\/ex/"}, record));
  EXPECT_TRUE(Matches({"name~=|^k8s\\.io/|"}, record));
  EXPECT_FALSE(Matches({"name~=/^extract/"}, record));
  EXPECT_FALSE(Matches({"labels.y~=1"}, record));
}

TEST(FilterTest, BlanksMayStandAroundOperators) {
  EXPECT_TRUE(Matches({"kind == committed , labels.x  ==  1"}, Sample()));
  EXPECT_FALSE(Matches({" kind != committed"}, Sample()));
}

TEST(FilterTest, NoSnapshotHasAnotherField) {
  EXPECT_FALSE(Matches({"size==1"}, Sample()));
  EXPECT_TRUE(Matches({"size!=1"}, Sample()));
  EXPECT_FALSE(Matches({"name.x==1"}, Sample()));
  EXPECT_FALSE(Matches({"labels"}, Sample()));
}

TEST(FilterTest, QuotesHaveTheEscapesOfGo) {
  SnapshotRecord record = Sample();
  record.name = "\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x8e\x01";
  EXPECT_TRUE(Matches({"name==\"\\t\\u00e9\\u20ac\\U0001f40e\\x01\""}, record));
}

TEST(FilterTest, OtherFiltersAreRefusedWithTheirColumn) {
  for (const char* text :
       {"name~=", "name~=(", "name~=/x", "name=x", "name==", "name==x,", ",", "name ==", "name,",
        "name==\"x", "name==\"\\q\"", "name==\"\\x1\"", "name==\"\\UFFFFFFFF\"", "name==a b"}) {
    const auto filter = Filter::Parse({text});
    EXPECT_EQ(filter.status().error(), EINVAL) << text;
    EXPECT_NE(filter.status().message().find("column"), std::string::npos) << text;
  }
}

TEST(SnapshotRecordTest, ARecordComesBackAsItWas) {
  SnapshotRecord record = Sample();
  EXPECT_EQ(EncodeRecord(*DecodeRecord(EncodeRecord(record))), EncodeRecord(record));
  record.content = Content::kFiles;
  record.kind = Kind::kView;
  const auto again = DecodeRecord(EncodeRecord(record));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->kind, Kind::kView);
  EXPECT_EQ(again->content, Content::kFiles);
}

TEST(SnapshotRecordTest, AnythingElseIsNoRecord) {
  const std::string good = EncodeRecord(Sample());
  for (size_t length = 0; length + 2 < good.size(); ++length) {
    EXPECT_EQ(DecodeRecord(good.substr(0, length)).status().error(), EBADMSG) << length;
  }
  const auto with = [&good](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return DecodeRecord(text).status().error();
  };
  EXPECT_EQ(with("\"version\": 1", "\"version\": 2"), EBADMSG);
  EXPECT_EQ(with("\"version\": 1", "\"version\": 1, \"more\": 1"), EBADMSG);
  EXPECT_EQ(with("\"id\": 7", "\"id\": \"7\""), EBADMSG);
  EXPECT_EQ(with("\"committed\"", "\"done\""), EBADMSG);
  EXPECT_EQ(with("\"x\": \"1\"", "\"x\": 1"), EBADMSG);
  EXPECT_EQ(DecodeRecord("[]").status().error(), EBADMSG);
}

TEST(LayerLabelsTest, AChainIdIsTheDigestOfTheChainBelowAndTheLayer) {
  const std::string one = "sha256:" + std::string(64, '1');
  EXPECT_EQ(ChainId("", one), one);
  // printf '%s %s' CHAIN LAYER | sha256sum
  EXPECT_EQ(ChainId("sha256:a", "sha256:b"),
            "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8");
}

TEST(LayerLabelsTest, TheRepositoryIsTakenFromTheReference) {
  const std::string digest = "sha256:" + std::string(64, 'a');
  const auto image = [&](const std::string& reference) {
    return ImageLayerOf({{kReferenceLabel, digest},
                         {kVerityLabel, digest},
                         {kMerkleLabel, digest},
                         {kDigestLabel, digest},
                         {kImageLabel, reference}});
  };
  EXPECT_EQ((*image("docker.io/library/debian:12"))->registry, "docker.io");
  EXPECT_EQ((*image("docker.io/library/debian:12"))->repository, "library/debian");
  EXPECT_EQ((*image("[::1]:5000/a@" + digest))->registry, "[::1]:5000");
  EXPECT_EQ((*image("h:1/a/b:t@" + digest))->repository, "a/b");
  for (const char* bad : {"", "debian", "/a", "h/", "h/:t", "h/a b", "h/a?x"}) {
    EXPECT_EQ(image(bad).status().error(), EINVAL) << bad;
  }
  EXPECT_FALSE(ImageLayerOf({{kReferenceLabel, digest}})->has_value());
}

TEST(FlagsTest, MirrorsArePairs) {
  const auto mirrors = ParseMirrors("r=m1,s=m2,r=m3:5000");
  ASSERT_TRUE(mirrors.ok());
  EXPECT_EQ(mirrors->at("r"), (std::vector<std::string>{"m1", "m3:5000"}));
  EXPECT_EQ(ParseMirrors("r").status().error(), EINVAL);
  EXPECT_EQ(ParseMirrors("r=").status().error(), EINVAL);
}

// A holdfast that says what a test wants.
class MounterTest : public testing::Test {
 protected:
  Status Mounted(const std::string& script) {
    const std::string program = directory_ / "holdfast";
    std::ofstream(program) << "#!/bin/sh\necho \"$@\" > " << directory_ / "asked"
                           << "\n"
                           << script << "\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    HoldfastOptions options;
    options.program = program;
    options.timeout = std::chrono::milliseconds(1500);
    return HoldfastMounter(options).Mount({"r:5000", "os", "sha256:1", "sha256:2", "sha256:3"},
                                          "/m");
  }
  std::string Asked() const {
    std::ifstream file(directory_ / "asked");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  host::TemporaryDirectory directory_;
};

TEST_F(MounterTest, WhatFailedIsTakenFromJsonWhateverElseIsSaid) {
  const Status status =
      Mounted(R"(echo "holdfast: something else"; echo late >&2)"
              "\n"
              R"(echo '{"errno":110,"error":"ETIMEDOUT","message":"two\nlines"}'; exit 1)");
  EXPECT_EQ(status.error(), EIO) << "words before the object";
  const Status told = Mounted(
      R"(echo late >&2; printf '%s' '{"errno":110,"error":"ETIMEDOUT","message":"two\nlines"}'; exit 1)");
  EXPECT_EQ(told.error(), ETIMEDOUT);
  EXPECT_EQ(told.message(), "two\nlines");
}

TEST_F(MounterTest, ItsLimitIsPassedOn) {
  EXPECT_TRUE(Mounted("exit 0").ok());
  EXPECT_NE(Asked().find("--timeout=1500ms --json"), std::string::npos) << Asked();
}

TEST_F(MounterTest, NoErrorOfAMountIsTakenForOneOfTheSnapshot) {
  for (const int error : {ENOENT, EEXIST, EINVAL, EPERM}) {
    const Status status = Mounted("echo '{\"errno\":" + std::to_string(error) +
                                  ",\"message\":\"no such image\"}'; exit 1");
    EXPECT_EQ(status.error(), EIO);
    EXPECT_EQ(status.message(), "no such image");
  }
}

TEST_F(MounterTest, OneThatSaysNothingIsNamedWithItsEnd) {
  EXPECT_NE(Mounted("exit 2").message().find("failed with exit code 2"), std::string::npos);
  EXPECT_NE(Mounted("kill -9 $$").message().find("was killed by signal 9"), std::string::npos);
}

}  // namespace
}  // namespace snapshotter
