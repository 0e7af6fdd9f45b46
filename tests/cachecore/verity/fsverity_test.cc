// Digests and trees against those of the program of fsverity-utils.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/cachecore/engine/seed.h"
#include "tests/cachecore/verity/built_tree.h"

namespace cachecore {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class FsverityTest : public testing::Test {
 protected:
  FsverityTest() {
    char name[] = "/tmp/holdfast-fsverity.XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~FsverityTest() override { (void)std::system(("rm -rf " + directory_).c_str()); }

  std::string directory_;
};

TEST_F(FsverityTest, DigestsAndTreesAreTheProgramsForAThousandSizes) {
  if (std::system("command -v fsverity >/dev/null") != 0) {
    GTEST_SKIP() << "SKIP: fsverity is not installed";
  }
  std::mt19937_64 random(TestSeed());
  std::vector<size_t> sizes = {0, 1, 4095, 4096, 4097, 524287, 524288, 524289};
  while (sizes.size() < 1000) {
    const size_t most = size_t{1} << (1 + random() % 20);
    sizes.push_back(random() % most);
  }
  sizes.push_back(128 * 128 * kVerityBlock + 1);  // A third level.
  std::map<std::string, std::string> expected;    // By path.
  std::map<std::string, std::string> trees;
  std::ofstream script(directory_ + "/run");
  script << "set -e\ncd " << directory_ << "\n";
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::string name = std::to_string(i);
    const std::string data = RandomBytes(sizes[i], &random);
    std::ofstream(directory_ + "/" + name, std::ios::binary) << data;
    const BuiltTree built = BuildOf(data);
    expected[name] = DigestText(built.digest);
    trees[name] = built.tree;
    script << "fsverity digest --out-merkle-tree=" << name << ".tree " << name << " >> digests\n";
  }
  script.close();
  ASSERT_EQ(std::system(("sh " + directory_ + "/run").c_str()), 0);
  std::ifstream digests(directory_ + "/digests");
  size_t compared = 0;
  for (std::string digest, name; digests >> digest >> name; ++compared) {
    ASSERT_EQ(digest, expected.at(name)) << sizes[std::stoul(name)] << " bytes";
    ASSERT_EQ(ReadFile(directory_ + "/" + name + ".tree"), trees.at(name))
        << sizes[std::stoul(name)] << " bytes";
  }
  EXPECT_EQ(compared, sizes.size());
}

}  // namespace
}  // namespace cachecore
