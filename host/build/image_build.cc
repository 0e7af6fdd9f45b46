#include "host/build/image_build.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/system/files.h"
#include "cachecore/system/subprocess.h"
#include "host/build/contained_program.h"
#include "host/build/container_layers.h"
#include "host/build/erofs_canonical.h"
#include "host/images/image_config.h"
#include "host/instance/privileges.h"

namespace host {
namespace {

using cachecore::BytesText;
using cachecore::FindTool;
using cachecore::IsDigest;
using cachecore::JsonString;
using cachecore::ListDirectory;
using cachecore::Progress;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::Status;
using cachecore::TryLockDirectory;
using cachecore::UniqueFd;
using nlohmann::json;
using Kind = BuildInput::Kind;

constexpr char kNoUuid[] = "00000000-0000-0000-0000-000000000000";
constexpr char kErofsFile[] = "erofs";
constexpr char kMerkleFile[] = "merkle";
constexpr int kAttemptsMax = 10;
// With one block alone there would be no Merkle tree, and registries don't take an empty blob.
constexpr off_t kErofsBytesMin = off_t{2} * 4096;

// A new directory that goes with this, unless it was kept.  It is locked while its process lives;
// what others have left is removed.
class TemporaryDirectory {
 public:
  static Result<TemporaryDirectory> Make(const std::string& parent, const std::string& name) {
    const std::string prefix = "." + name + ".holdfast-";
    for (const std::string& left : ListDirectory(parent)) {
      if (!left.starts_with(prefix)) continue;
      const Result<UniqueFd> abandoned = TryLockDirectory(parent + "/" + left);
      std::error_code ignored;
      if (abandoned.ok()) std::filesystem::remove_all(parent + "/" + left, ignored);
    }
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      std::string path = parent + "/" + prefix + "XXXXXX";
      if (mkdtemp(path.data()) == nullptr) {
        return Status::FromErrno(errno, "make a directory in " + parent);
      }
      // Before it was locked, another build may have taken it for abandoned.
      Result<UniqueFd> lock = TryLockDirectory(path);
      if (lock.ok() && access(path.c_str(), F_OK) == 0) {
        return TemporaryDirectory(path, std::move(lock).value());
      }
      rmdir(path.c_str());
    }
    return Status(ENOLCK, "cannot lock a directory in " + parent);
  }
  TemporaryDirectory(TemporaryDirectory&& other) noexcept
      : path_(std::exchange(other.path_, "")), lock_(std::move(other.lock_)) {}
  TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(lock_, other.lock_);
    return *this;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  void Keep() { path_.clear(); }

 private:
  TemporaryDirectory(std::string path, UniqueFd lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

std::string ParentOf(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

class ImageBuild {
 public:
  ImageBuild(const ImageBuildRequest& request, Progress* progress)
      : request_(request), progress_(*progress) {}

  Result<BuiltImage> Run() {
    RETURN_IF_ERROR(Prepare());
    if (request_.input.kind == Kind::kDirectory) {
      RETURN_IF_ERROR(TakeDirectory());
    } else {
      RETURN_IF_ERROR(TakeLayers());
    }
    RETURN_IF_ERROR(MakeErofs());
    RETURN_IF_ERROR(MakeMerkle());
    RETURN_IF_ERROR(WriteLayout());
    RETURN_IF_ERROR(Publish());
    return built_;
  }

 private:
  Status Prepare();
  Status CheckOutside(const std::string& directory, const std::string& what) const;
  Status CheckOutput() const;
  Status CheckTools() const;
  Status TakeDirectory();
  Status TakeLayers();
  Status CheckTree();
  Status MakeErofs();
  Status MakeMerkle();
  Status WriteLayout();
  Status Publish();
  // What a tool that writes to the output's file system said, as our error.
  Status Explain(const Status& why) const;
  ContainedProgram InStage(std::vector<std::string> argv) const;

  const ImageBuildRequest& request_;
  Progress& progress_;
  std::optional<TemporaryDirectory> stage_;  // Becomes the output.
  std::optional<TemporaryDirectory> work_;   // Layers and the tree that is made of them.
  uint64_t bytes_max_ = 0;
  std::string tree_;
  json config_;
  HoldfastBlobs blobs_;
  BuiltImage built_;
};

Status ImageBuild::CheckOutput() const {
  struct stat info = {};
  if (lstat(request_.output.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return Status::FromErrno(errno, request_.output);
  }
  if (!request_.replaces) {
    return Status(EEXIST, request_.output + " exists already; --force replaces it");
  }
  // A slip of the hand must not cost a home directory.
  if (access((request_.output + "/oci-layout").c_str(), F_OK) == 0) return {};
  return Status(EEXIST, request_.output + " is not an OCI layout, so --force does not replace it");
}

Status ImageBuild::CheckTools() const {
  const bool has_layers = request_.input.kind != Kind::kDirectory;
  struct Tool {
    const char* name;
    const char* package;
    bool is_needed;
  };
  for (const Tool& tool :
       {Tool{"mkfs.erofs", "erofs-utils", true}, Tool{"fsverity", "fsverity", true},
        Tool{"skopeo", "skopeo", has_layers}}) {
    if (!tool.is_needed) continue;
    RETURN_IF_ERROR(FindTool(tool.name, tool.package).status());
  }
  return {};
}

// What is made in the input would be put into the image.
Status ImageBuild::CheckOutside(const std::string& directory, const std::string& what) const {
  if (request_.input.kind != Kind::kDirectory) return {};
  std::error_code error;
  const std::string input = std::filesystem::canonical(request_.input.path, error).string();
  const std::string real = std::filesystem::weakly_canonical(directory, error).string();
  if (error || (real != input && !real.starts_with(input == "/" ? input : input + "/"))) return {};
  return Status(EINVAL, what + " lies in the input " + request_.input.text +
                            " and would be put into the image; name one outside it");
}

Status ImageBuild::Prepare() {
  RETURN_IF_ERROR(CheckOutside(request_.output, "the output " + request_.output));
  RETURN_IF_ERROR(CheckOutside(request_.tmp_directory, "--tmp-dir " + request_.tmp_directory));
  RETURN_IF_ERROR(CheckOutput());
  RETURN_IF_ERROR(CheckTools());
  const std::string parent = ParentOf(request_.output);
  const std::string name = request_.output.substr(request_.output.rfind('/') + 1);
  ASSIGN_OR_RETURN(stage_, TemporaryDirectory::Make(parent, name));
  const std::string& work_parent = request_.tmp_directory.empty() ? parent : request_.tmp_directory;
  ASSIGN_OR_RETURN(work_, TemporaryDirectory::Make(work_parent, name));
  bytes_max_ = request_.tree_bytes_max;
  struct statvfs info = {};
  if (bytes_max_ == 0 && statvfs(work_->path().c_str(), &info) == 0) {
    // The layers, the tree and the image lie beside each other for a while.
    bytes_max_ = uint64_t{info.f_bavail} * info.f_frsize / 5 * 2;
  }
  return {};
}

Status ImageBuild::TakeDirectory() {
  tree_ = request_.input.path;
  if (request_.config_file.empty()) {
    config_ = MinimalImageConfig();
  } else {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(request_.config_file));
    ASSIGN_OR_RETURN(config_, ParseImageConfig(text, request_.config_file));
  }
  return CheckTree();
}

Status ImageBuild::TakeLayers() {
  if (!request_.config_file.empty()) {
    return Status(EINVAL, "--config is for a directory; " + request_.input.text + " has its own");
  }
  RETURN_IF_ERROR(RequireRoot("unpacking the layers of " + request_.input.text));
  ContainerLayers layers(request_.input, request_.access, work_->path(), bytes_max_);
  ASSIGN_OR_RETURN(const std::string config, layers.Copy(&progress_));
  ASSIGN_OR_RETURN(config_, ParseImageConfig(config, "the config of " + request_.input.text));
  progress_.End("done");
  ASSIGN_OR_RETURN(tree_, layers.Unpack(&progress_));
  RETURN_IF_ERROR(CheckTree());
  progress_.End(std::to_string(built_.tree.files) + " files, " + BytesText(built_.tree.bytes));
  return {};
}

Status ImageBuild::CheckTree() {
  ASSIGN_OR_RETURN(built_.tree, MeasureTree(tree_));
  if (built_.tree.bytes <= bytes_max_) return {};
  return Status(EFBIG, request_.input.text + " has " + std::to_string(built_.tree.bytes) +
                           " bytes of files, more than " + std::to_string(bytes_max_) +
                           "; if that is right, allow it with --max-size");
}

Status ImageBuild::Explain(const Status& why) const {
  struct statvfs info = {};
  const bool is_full = statvfs(stage_->path().c_str(), &info) == 0 &&
                       uint64_t{info.f_bavail} * info.f_frsize < (1 << 20);
  if (why.error() == EIO && (is_full || why.message().find("ENOSPC") != std::string::npos ||
                             why.message().find("o space left") != std::string::npos)) {
    return Status(
        ENOSPC, "the file system of " + request_.output + " is full; make room, or choose another");
  }
  return why;
}

ContainedProgram ImageBuild::InStage(std::vector<std::string> argv) const {
  ContainedProgram program;
  program.argv = std::move(argv);
  program.directory = stage_->path();
  // A user that isn't root can damage its own files only.
  program.fence = geteuid() == 0 ? ContainedProgram::Fence::kAll : ContainedProgram::Fence::kNone;
  program.on_progress = [this](uint64_t bytes) { progress_.At(bytes); };
  return program;
}

Status ImageBuild::MakeErofs() {
  ASSIGN_OR_RETURN(const std::string program, FindTool("mkfs.erofs", "erofs-utils"));
  progress_.Begin("making the image", built_.tree.bytes);
  // Whole inodes: a short one can't hold more than 65,535 links.  No checksum of the superblock: it
  // would cover what is changed below, and every byte is covered by the Merkle tree.
  const Result<std::string> said =
      OutputOfContained(InStage({program, "--quiet", "-Enosbcrc,force-inode-extended",
                                 std::string("-U") + kNoUuid, kErofsFile, tree_}));
  if (!said.ok()) return Explain(said.status());
  const std::string path = stage_->path() + "/" + kErofsFile;
  RETURN_IF_ERROR(MakeErofsCanonical(path));
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return Status::FromErrno(errno, path);
  if (info.st_size < kErofsBytesMin && truncate(path.c_str(), kErofsBytesMin) != 0) {
    return Status::FromErrno(errno, "lengthen " + path);
  }
  progress_.End(BytesText(static_cast<uint64_t>(std::max(info.st_size, kErofsBytesMin))));
  work_.reset();  // The tree has done its part.
  return {};
}

Status ImageBuild::MakeMerkle() {
  ASSIGN_OR_RETURN(const std::string program, FindTool("fsverity", "fsverity"));
  progress_.Begin("hashing it", 0);
  const Result<std::string> said = OutputOfContained(
      InStage({program, "digest", "--compact", "--hash-alg=sha256", "--block-size=4096",
               std::string("--out-merkle-tree=") + kMerkleFile, kErofsFile}));
  if (!said.ok()) return Explain(said.status());
  // With --compact some versions leave out the name of the algorithm.
  std::string digest = said->substr(0, said->find_last_not_of(" \n") + 1);
  if (!digest.starts_with("sha256:")) digest = "sha256:" + digest;
  if (!IsDigest(digest)) return Status(EIO, "fsverity printed no digest but: " + *said);
  blobs_.verity = digest;
  return {};
}

Status ImageBuild::WriteLayout() {
  OciLayoutWriter layout(stage_->path());
  RETURN_IF_ERROR(layout.Begin());
  const auto at = [this](uint64_t bytes) { progress_.At(bytes); };
  ASSIGN_OR_RETURN(blobs_.erofs, layout.AddFile(stage_->path() + "/" + kErofsFile, at));
  ASSIGN_OR_RETURN(blobs_.merkle, layout.AddFile(stage_->path() + "/" + kMerkleFile, nullptr));
  progress_.End(blobs_.verity);
  const json platform = PlatformOfConfig(config_);
  ASSIGN_OR_RETURN(built_.config, layout.AddText(HoldfastConfigText(config_, blobs_)));
  ASSIGN_OR_RETURN(built_.manifest, layout.AddText(HoldfastManifestText(built_.config, blobs_)));
  RETURN_IF_ERROR(layout.Finish(built_.manifest, platform));
  built_.erofs = blobs_.erofs;
  built_.merkle = blobs_.merkle;
  built_.verity = blobs_.verity;
  built_.platform = JsonString(platform, "os") + "/" + JsonString(platform, "architecture");
  if (platform.contains("variant")) built_.platform += "/" + JsonString(platform, "variant");
  return {};
}

Status ImageBuild::Publish() {
  const std::string& output = request_.output;
  if (chmod(stage_->path().c_str(), 0755) != 0) return Status::FromErrno(errno, stage_->path());
  if (renameat2(AT_FDCWD, stage_->path().c_str(), AT_FDCWD, output.c_str(), RENAME_NOREPLACE) ==
      0) {
    stage_->Keep();
    return {};
  }
  if (errno != EEXIST) return Status::FromErrno(errno, "make " + output);
  RETURN_IF_ERROR(CheckOutput());  // It may have come since.
  // The old one takes the name of the temporary directory and goes with it.
  if (renameat2(AT_FDCWD, stage_->path().c_str(), AT_FDCWD, output.c_str(), RENAME_EXCHANGE) == 0) {
    return {};
  }
  return Status::FromErrno(errno, "replace " + output);
}

}  // namespace

Result<BuiltImage> BuildImage(const ImageBuildRequest& request, Progress* progress) {
  return ImageBuild(request, progress).Run();
}

}  // namespace host
