#include "snapshotter/snapshot_store.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "snapshotter/layer_labels.h"
#include "tests/snapshotter/fake_mounter.h"

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;

const std::string kBlob = "sha256:" + std::string(64, 'a');
const std::string kVerity = "sha256:" + std::string(64, 'b');
const std::string kMerkle = "sha256:" + std::string(64, 'c');

class SnapshotStoreTest : public testing::Test {
 protected:
  SnapshotStoreTest() {
    std::string path = std::filesystem::temp_directory_path() / "holdfast-snapshots-XXXXXX";
    root_ = std::filesystem::canonical(mkdtemp(path.data()));
    Restart();
  }
  ~SnapshotStoreTest() override {
    store_.reset();
    std::filesystem::remove_all(root_);
  }

  // As after SIGKILL: nothing is done at the end of a life.
  void Restart() {
    store_.reset();
    Result<std::unique_ptr<SnapshotStore>> store = SnapshotStore::Open(root_, &mounter_);
    ASSERT_TRUE(store.ok()) << store.status().message();
    store_ = std::move(store).value();
  }

  static Labels ImageLabels(const std::string& verity = kVerity) {
    return {{kReferenceLabel, kVerity},
            {kVerityLabel, verity},
            {kMerkleLabel, kMerkle},
            {kImageLabel, "registry.example:5000/os/debian:12"},
            {kDigestLabel, kBlob}};
  }
  // The two layers of an image; the name of the upper one.
  std::string PullImage() {
    EXPECT_EQ(store_->Prepare("k/1/extract", "", ImageLabels()).status().error(), EEXIST);
    EXPECT_EQ(
        store_
            ->Prepare("k/2/extract", "k/1/extract", {{kReferenceLabel, ChainId(kVerity, kMerkle)}})
            .status()
            .error(),
        EEXIST);
    return "k/2/extract";
  }
  std::string Path(const std::string& key, const std::string& part) {
    return root_ + "/snapshots/" + std::to_string(store_->Stat(key)->id) + "/" + part;
  }
  void CommitLayer(const std::string& key, const std::string& name, const std::string& parent) {
    ASSERT_TRUE(store_->Prepare(key, parent, {}).ok());
    std::ofstream(Path(key, "fs/" + std::filesystem::path(name).filename().string())) << "data";
    const Status status = store_->Commit(name, key, {{"a", "b"}});
    ASSERT_TRUE(status.ok()) << status.message();
  }
  size_t DirectoryCount() {
    const std::filesystem::directory_iterator begin(root_ + "/snapshots");
    return static_cast<size_t>(std::distance(begin, std::filesystem::directory_iterator()));
  }

  FakeMounter mounter_;
  std::string root_;
  std::unique_ptr<SnapshotStore> store_;
};

TEST_F(SnapshotStoreTest, WithoutParentASnapshotIsABindOfItsOwnDirectory) {
  const auto active = store_->Prepare("a", "", {});
  ASSERT_TRUE(active.ok());
  ASSERT_EQ(active->size(), 1U);
  EXPECT_EQ((*active)[0].type, "bind");
  EXPECT_EQ((*active)[0].source, Path("a", "fs"));
  EXPECT_EQ((*active)[0].options, (std::vector<std::string>{"rw", "rbind"}));
  EXPECT_EQ((*store_->View("v", "", {}))[0].options[0], "ro");
}

TEST_F(SnapshotStoreTest, LayersAreStackedNearestFirst) {
  CommitLayer("a", "one", "");
  CommitLayer("b", "two", "one");
  const auto mounts = store_->Prepare("c", "two", {});
  ASSERT_TRUE(mounts.ok());
  EXPECT_EQ((*mounts)[0].type, "overlay");
  const std::vector<std::string>& options = (*mounts)[0].options;
  EXPECT_EQ(options.back(), "lowerdir=" + Path("two", "fs") + ":" + Path("one", "fs"));
  EXPECT_EQ(options[options.size() - 2], "upperdir=" + Path("c", "fs"));
  const auto view = store_->View("v", "one", {});
  EXPECT_EQ((*view)[0].type, "bind");
  EXPECT_EQ((*view)[0].source, Path("one", "fs"));
}

TEST_F(SnapshotStoreTest, ANewSnapshotHasTheModeOfTheTopDirectoryBelowIt) {
  CommitLayer("a", "one", "");
  std::filesystem::permissions(Path("one", "fs"), std::filesystem::perms(0711));
  ASSERT_TRUE(store_->Prepare("b", "one", {}).ok());
  EXPECT_EQ(std::filesystem::status(Path("b", "fs")).permissions(), std::filesystem::perms(0711));
}

TEST_F(SnapshotStoreTest, ALayerGetsItsParentWhenItIsCommitted) {
  CommitLayer("a", "one", "");
  CommitLayer("b", "two", "one");
  ASSERT_TRUE(store_->Prepare("c", "", {}).ok());
  ASSERT_TRUE(store_->Prepare("d", "one", {}).ok());
  EXPECT_EQ(store_->Commit("three", "c", {}, "none").error(), ENOENT);
  EXPECT_EQ(store_->Commit("three", "c", {}, "d").error(), EINVAL);
  EXPECT_EQ(store_->Commit("three", "d", {}, "two").error(), EINVAL);
  ASSERT_TRUE(store_->Commit("three", "c", {}, "two").ok());
  EXPECT_EQ(store_->Stat("three")->parent, "two");
  EXPECT_EQ(store_->Remove("two").error(), EBUSY);
  const auto mounts = store_->Prepare("e", "three", {});
  ASSERT_TRUE(mounts.ok());
  const std::vector<std::string>& options = mounts->front().options;
  EXPECT_TRUE(std::any_of(options.begin(), options.end(), [this](const std::string& option) {
    return option ==
           "lowerdir=" + Path("three", "fs") + ":" + Path("two", "fs") + ":" + Path("one", "fs");
  }));
}

TEST_F(SnapshotStoreTest, NoLabelIsKeptWithoutAValue) {
  ASSERT_TRUE(store_->Prepare("a", "", {{"empty", ""}, {"x", "1"}}).ok());
  EXPECT_EQ(store_->Stat("a")->labels, (Labels{{"x", "1"}}));
  ASSERT_TRUE(store_->Commit("one", "a", {{"empty", ""}, {"y", "1"}}).ok());
  EXPECT_EQ(store_->Stat("one")->labels, (Labels{{"y", "1"}}));
  EXPECT_EQ(store_->Update("one", {{"", "1"}}, {"labels."}).status().error(), EINVAL);
}

TEST_F(SnapshotStoreTest, AViewUsesNothing) {
  CommitLayer("a", "one", "");
  ASSERT_TRUE(store_->View("v", "one", {}).ok());
  EXPECT_EQ(store_->Usage("v")->bytes, 0);
  EXPECT_EQ(store_->Usage("v")->inodes, 0);
  EXPECT_GT(store_->Usage("one")->inodes, 0);
}

TEST_F(SnapshotStoreTest, RequestsThatCannotBeMeantAreRefused) {
  CommitLayer("a", "one", "");
  ASSERT_TRUE(store_->Prepare("b", "one", {}).ok());
  ASSERT_TRUE(store_->View("v", "one", {}).ok());
  EXPECT_EQ(store_->Prepare("b", "", {}).status().error(), EEXIST);
  EXPECT_EQ(store_->Prepare("", "", {}).status().error(), EINVAL);
  EXPECT_EQ(store_->Prepare("c", "none", {}).status().error(), ENOENT);
  EXPECT_EQ(store_->Prepare("c", "b", {}).status().error(), EINVAL);
  EXPECT_EQ(store_->Commit("two", "one", {}).error(), EBUSY);
  EXPECT_EQ(store_->Commit("two", "v", {}).error(), EBUSY);
  EXPECT_EQ(store_->Commit("one", "b", {}).error(), EEXIST);
  EXPECT_EQ(store_->Commit("two", "none", {}).error(), ENOENT);
  EXPECT_EQ(store_->Mounts("one").status().error(), EBUSY);
  EXPECT_EQ(store_->Mounts("none").status().error(), ENOENT);
  EXPECT_EQ(store_->Remove("one").error(), EBUSY);
  EXPECT_EQ(store_->Remove("none").error(), ENOENT);
  EXPECT_EQ(store_->Update("one", {}, {"parent"}).status().error(), EINVAL);
}

TEST_F(SnapshotStoreTest, UsageIsWhatLiesInASnapshotOfItsOwn) {
  CommitLayer("a", "one", "");
  EXPECT_EQ(store_->Usage("one")->inodes, 2);
  ASSERT_TRUE(store_->Prepare("b", "one", {}).ok());
  EXPECT_EQ(store_->Usage("b")->inodes, 1);
  std::ofstream(Path("b", "fs/file")) << std::string(100000, 'x');
  std::filesystem::create_hard_link(Path("b", "fs/file"), Path("b", "fs/again"));
  EXPECT_EQ(store_->Usage("b")->inodes, 2);
  EXPECT_GE(store_->Usage("b")->bytes, 100000);
  EXPECT_LT(store_->Usage("b")->bytes, 200000);
}

TEST_F(SnapshotStoreTest, LabelsAreChangedAsAWholeOrOneByOne) {
  CommitLayer("a", "one", "");
  EXPECT_EQ(store_->Update("one", {{"x", "1"}, {"y", "2"}}, {"labels.x"})->labels,
            (Labels{{"a", "b"}, {"x", "1"}}));
  EXPECT_EQ(store_->Update("one", {}, {"labels.a"})->labels, (Labels{{"x", "1"}}));
  EXPECT_EQ(store_->Update("one", {{"z", "3"}}, {})->labels, (Labels{{"z", "3"}}));
  Restart();
  EXPECT_EQ(store_->Stat("one")->labels, (Labels{{"z", "3"}}));
}

TEST_F(SnapshotStoreTest, AnImageIsMountedAndItsLayersAreCommittedAndSaidToBeThere) {
  const std::string top = PullImage();
  EXPECT_EQ(mounter_.mounted(),
            (std::map<std::string, std::string>{{Path("k/1/extract", "fs"), kBlob}}));
  // What containerd asks after EEXIST.
  const auto found = store_->List(
      *Filter::Parse({"labels.\"containerd.io/snapshot.ref\"==" + kVerity + ",parent==\"\""}));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind, Kind::kCommitted);
  EXPECT_EQ(found[0].image.registry, "registry.example:5000");
  EXPECT_EQ(found[0].image.repository, "os/debian");
  EXPECT_EQ(store_->Stat(top)->kind, Kind::kCommitted);

  const auto mounts = store_->Prepare("c", top, {});
  ASSERT_TRUE(mounts.ok());
  EXPECT_EQ((*mounts)[0].options.back(), "lowerdir=" + Path("k/1/extract", "fs"));
  const auto view = store_->View("v", top, {});
  EXPECT_EQ((*view)[0].source, Path("k/1/extract", "fs"));
}

TEST_F(SnapshotStoreTest, TheSameImageAgainIsTheSameSnapshot) {
  PullImage();
  EXPECT_EQ(store_->Prepare("other/1/extract", "", ImageLabels()).status().error(), EEXIST);
  EXPECT_EQ(store_->Stat("other/1/extract").status().error(), ENOENT);
  EXPECT_EQ(mounter_.mounts(), 1);
  EXPECT_EQ(DirectoryCount(), 2U);
}

TEST_F(SnapshotStoreTest, TwoCallsForTheSameImageAtOnceGetOneMount) {
  mounter_.during_mount = [] { std::this_thread::yield(); };
  std::vector<std::thread> pulls;
  for (int i = 0; i < 8; ++i) {
    pulls.emplace_back([this, i] {
      EXPECT_EQ(store_->Prepare("k/" + std::to_string(i), "", ImageLabels()).status().error(),
                EEXIST);
    });
  }
  for (std::thread& pull : pulls) pull.join();
  EXPECT_EQ(mounter_.mounts(), 1);
  EXPECT_EQ(DirectoryCount(), 1U);
}

TEST_F(SnapshotStoreTest, AnImageThatClaimsAnothersIdentityIsRefused) {
  const Status refused = store_->Prepare("evil", "", ImageLabels(kMerkle)).status();
  EXPECT_EQ(refused.error(), EPERM);
  EXPECT_NE(refused.message().find(kVerity), std::string::npos) << refused.message();
  EXPECT_NE(refused.message().find(kMerkle), std::string::npos) << refused.message();
  EXPECT_EQ(mounter_.mounts(), 0);
  PullImage();
}

TEST_F(SnapshotStoreTest, AnImageIsTheLowestLayer) {
  CommitLayer("a", "one", "");
  const Status refused = store_->Prepare("k", "one", ImageLabels()).status();
  EXPECT_EQ(refused.error(), EINVAL);
  EXPECT_NE(refused.message().find("lowest"), std::string::npos) << refused.message();
}

TEST_F(SnapshotStoreTest, AnImageThatCannotBeMountedLeavesNothing) {
  mounter_.mount_status = Status(EIO, "holdfast: registry.example does not answer");
  const Status failed = store_->Prepare("k", "", ImageLabels()).status();
  EXPECT_EQ(failed.error(), EIO);
  EXPECT_NE(failed.message().find("does not answer"), std::string::npos);
  EXPECT_NE(failed.message().find(kBlob), std::string::npos);
  EXPECT_EQ(DirectoryCount(), 0U);
  mounter_.mount_status = {};
  EXPECT_EQ(store_->Prepare("k", "", ImageLabels()).status().error(), EEXIST);
}

TEST_F(SnapshotStoreTest, LabelsThatLackSomethingAreNamedWithTheCure) {
  Labels labels = ImageLabels();
  labels.erase(kImageLabel);
  Status status = store_->Prepare("k", "", labels).status();
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_NE(status.message().find("disable_snapshot_annotations = false"), std::string::npos);
  labels = ImageLabels();
  labels.erase(kReferenceLabel);
  status = store_->Prepare("k", "", labels).status();
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_NE(status.message().find("CRI"), std::string::npos);
  EXPECT_EQ(store_->Prepare("k", "", ImageLabels("sha256:XYZ")).status().error(), EINVAL);
}

TEST_F(SnapshotStoreTest, AnOrdinaryLayerOverAnImageIsAnOrdinaryLayer) {
  const std::string top = PullImage();
  ASSERT_TRUE(store_->Prepare("a", top, {{kReferenceLabel, ChainId(kVerity, kBlob)}}).ok());
  ASSERT_TRUE(store_->Commit("added", "a", {}).ok());
  const auto mounts = store_->Prepare("c", "added", {});
  EXPECT_EQ((*mounts)[0].options.back(),
            "lowerdir=" + Path("added", "fs") + ":" + Path("k/1/extract", "fs"));
}

TEST_F(SnapshotStoreTest, EverythingIsThereAfterARestart) {
  CommitLayer("a", "one", "");
  const std::string top = PullImage();
  ASSERT_TRUE(store_->Prepare("c", top, {{"x", "y"}}).ok());
  const auto before = store_->List(*Filter::Parse({}));
  const auto mounts = store_->Mounts("c");
  Restart();
  const auto after = store_->List(*Filter::Parse({}));
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_EQ(EncodeRecord(before[i]), EncodeRecord(after[i]));
  EXPECT_EQ(store_->Mounts("c")->at(0).options, mounts->at(0).options);
}

TEST_F(SnapshotStoreTest, WhatARebootUnmountedIsMountedAgainWhenItIsNeeded) {
  const std::string top = PullImage();
  ASSERT_TRUE(store_->Prepare("c", top, {}).ok());
  mounter_.Reboot();
  Restart();
  EXPECT_TRUE(mounter_.mounted().empty());
  ASSERT_TRUE(store_->Mounts("c").ok());
  EXPECT_EQ(mounter_.mounted().size(), 1U);
  mounter_.Reboot();
  ASSERT_TRUE(store_->View("v", top, {}).ok());
  EXPECT_EQ(mounter_.mounted().size(), 1U);
  mounter_.Reboot();
  EXPECT_EQ(store_->Prepare("again", "", ImageLabels()).status().error(), EEXIST);
  EXPECT_EQ(mounter_.mounted().size(), 1U);
}

TEST_F(SnapshotStoreTest, WhatWasNeverFinishedIsRemovedAtStart) {
  CommitLayer("a", "one", "");
  const std::string orphan = root_ + "/snapshots/17";
  std::filesystem::create_directories(orphan + "/fs");
  std::ofstream(orphan + "/fs/file") << "half";
  std::ofstream(orphan + "/record.new") << "{";
  const ImageLayer image{"r", "p", kBlob, kVerity, kMerkle};
  ASSERT_TRUE(mounter_.Mount(image, orphan + "/fs").ok());
  Restart();
  EXPECT_FALSE(std::filesystem::exists(orphan));
  EXPECT_TRUE(mounter_.mounted().empty());
  EXPECT_TRUE(store_->Stat("one").ok());
}

TEST_F(SnapshotStoreTest, ADamagedRecordLosesItsSnapshotOnlyAndKeepsItsFiles) {
  CommitLayer("a", "one", "");
  CommitLayer("b", "two", "");
  const std::string record = Path("one", "record");
  std::ofstream(record) << "{\"version\": 1";
  Restart();
  EXPECT_EQ(store_->Stat("one").status().error(), ENOENT);
  EXPECT_TRUE(store_->Stat("two").ok());
  EXPECT_TRUE(std::filesystem::exists(record));
}

TEST_F(SnapshotStoreTest, RemovingAnImageUnmountsIt) {
  const std::string top = PullImage();
  EXPECT_EQ(store_->Remove("k/1/extract").error(), EBUSY);
  ASSERT_TRUE(store_->Remove(top).ok());
  ASSERT_TRUE(store_->Remove("k/1/extract").ok());
  EXPECT_TRUE(mounter_.mounted().empty());
  EXPECT_EQ(DirectoryCount(), 0U);
}

TEST_F(SnapshotStoreTest, WhatCannotBeUnmountedNowIsRemovedLater) {
  const std::string top = PullImage();
  ASSERT_TRUE(store_->Remove(top).ok());
  mounter_.unmount_status = Status(EBUSY, "busy");
  ASSERT_TRUE(store_->Remove("k/1/extract").ok());
  EXPECT_EQ(store_->Stat("k/1/extract").status().error(), ENOENT);
  EXPECT_EQ(DirectoryCount(), 1U);
  EXPECT_EQ(store_->Cleanup().error(), EBUSY);
  mounter_.unmount_status = {};
  EXPECT_TRUE(store_->Cleanup().ok());
  EXPECT_EQ(DirectoryCount(), 0U);
}

TEST_F(SnapshotStoreTest, TwoSnapshottersNeverShareADirectory) {
  EXPECT_EQ(SnapshotStore::Open(root_, &mounter_).status().error(), EBUSY);
}

}  // namespace
}  // namespace snapshotter
