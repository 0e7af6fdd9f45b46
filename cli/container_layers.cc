#include "cli/container_layers.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <vector>

#include "cli/content_digest.h"
#include "cli/files.h"
#include "cli/holdfast_manifest.h"
#include "cli/image_tree.h"
#include "cli/process.h"
#include "cli/skopeo.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;
using nlohmann::json;
using Kind = BuildInput::Kind;

// Names within the working directory, where the tools run: a path with a colon would be misread.
constexpr char kInputLink[] = "input";
constexpr char kLayersDirectory[] = "layers";
constexpr char kLayersTag[] = "image";
constexpr char kTreeDirectory[] = "tree";

bool IsTarLayer(const std::string& media_type) {
  for (const char* stem : {"application/vnd.oci.image.layer.v1.tar",
                           "application/vnd.oci.image.layer.nondistributable.v1.tar"}) {
    if (media_type == stem || media_type == std::string(stem) + "+gzip") return true;
  }
  return false;
}

std::string SkopeoName(const BuildInput& input) {
  const std::string tag = input.tag.empty() ? "" : ":" + input.tag;
  switch (input.kind) {
    case Kind::kLayout:
      return "oci:" + std::string(kInputLink) + tag;
    case Kind::kDockerArchive:
      return "docker-archive:" + std::string(kInputLink) + tag;
    default:
      break;
  }
  const ImageReference& image = input.reference;
  return "docker://" + image.registry + "/" + image.repository +
         (image.digest.empty() ? ":" + image.tag : "@" + image.digest);
}

}  // namespace

Status ContainerLayers::Explain(const Status& why, const std::string& doing) const {
  const std::string begin = input_.text + " can't be " + doing + ": ";
  if (why.error() == EINTR || why.error() == ENOPKG || why.error() == EPERM) return why;
  if (why.error() == EFBIG) {
    return Status(
        EFBIG, begin + "it has " + why.message() + "; if that is right, allow it with --max-size");
  }
  if (why.message().find("no space left on device") != std::string::npos) {
    return Status(ENOSPC, begin + "the file system of " + work_ +
                              " is full; make room, or choose another with --tmp-dir");
  }
  return Status(why.error(), begin + why.message());
}

Result<std::string> ContainerLayers::Copy(Progress* progress) {
  const bool is_remote = input_.kind == Kind::kRegistry;
  const std::string link = work_ + "/" + kInputLink;
  if (!is_remote && symlink(input_.path.c_str(), link.c_str()) != 0) {
    return Status::FromErrno(errno, link);
  }
  ContainedProgram copy;
  ASSIGN_OR_RETURN(const std::string program, FindTool("skopeo", "skopeo"));
  ASSIGN_OR_RETURN(const std::unique_ptr<Skopeo> skopeo, Skopeo::Make(access_));
  // An archive's layers have no media type of their own, and skopeo's guess is gzip.
  copy.argv = {program, "copy", "--quiet",
               input_.kind == Kind::kDockerArchive ? "--dest-compress-level=1"
                                                   : "--dest-oci-accept-uncompressed-layers"};
  if (is_remote) {
    for (std::string& flag : skopeo->AccessFlags("src-")) copy.argv.push_back(std::move(flag));
  }
  copy.argv.push_back(SkopeoName(input_));
  copy.argv.push_back(std::string("oci:") + kLayersDirectory + ":" + kLayersTag);
  copy.directory = work_;
  // A registry's copy is made of names that are digests; credential helpers may write where they
  // like.
  copy.fence = is_remote ? ContainedProgram::Fence::kNone : ContainedProgram::Fence::kAll;
  copy.own_environment = !is_remote;
  copy.written_bytes_max = bytes_max_;
  copy.on_progress = [progress](uint64_t bytes) { progress->At(bytes); };
  progress->Begin("copying the layers", 0);
  ASSIGN_OR_RETURN(const ContainedEnd end, [&]() -> Result<ContainedEnd> {
    Result<ContainedEnd> ended = RunContained(copy);
    if (!ended.ok()) return Explain(ended.status(), "copied");
    return ended;
  }());
  if (end.exit_code != 0) return Explain(Status(EIO, SkopeoSentence(end.errors)), "copied");
  return ConfigOfCopy();
}

Result<std::string> ContainerLayers::ConfigOfCopy() const {
  const std::string layout = work_ + "/" + kLayersDirectory;
  const auto blob = [&layout](const std::string& digest) -> Result<std::string> {
    if (!IsDigest(digest)) return Status(EBADMSG, "it names a blob without a sha256 digest");
    return ReadFile(layout + "/blobs/sha256/" + DigestHex(digest));
  };
  ASSIGN_OR_RETURN(const json index, ReadJsonFile(layout + "/index.json"));
  const json& entries = JsonField(index, "manifests");
  if (!entries.is_array() || entries.size() != 1) {
    return Explain(Status(EBADMSG, "it is not one image"), "read");
  }
  const Result<std::string> text = blob(JsonString(entries[0], "digest"));
  if (!text.ok()) return Explain(text.status(), "read");
  const json manifest = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const json& layers = JsonField(manifest, "layers");
  for (const json& layer : layers) {
    const std::string type = JsonString(layer, "mediaType");
    if (type == kErofsLayerType) {
      return Status(EMEDIUMTYPE, input_.text + " is a Holdfast image already");
    }
    if (!IsTarLayer(type)) {
      return Explain(Status(EMEDIUMTYPE, "it has a layer of type '" + type + "', no tar archive"),
                     "unpacked");
    }
  }
  Result<std::string> config = blob(JsonString(JsonField(manifest, "config"), "digest"));
  if (!config.ok()) return Explain(config.status(), "read");
  return config;
}

Result<std::string> ContainerLayers::Unpack(Progress* progress) {
  ContainedProgram unpack;
  ASSIGN_OR_RETURN(const std::string program, FindTool("umoci", "umoci"));
  unpack.argv = {
      program,       "raw", "unpack", "--image", std::string(kLayersDirectory) + ":" + kLayersTag,
      kTreeDirectory};
  unpack.directory = work_;
  unpack.written_bytes_max = bytes_max_;
  unpack.on_progress = [progress](uint64_t bytes) { progress->At(bytes); };
  progress->Begin("unpacking them", 0);
  ASSIGN_OR_RETURN(const timespec begun, FileSystemTime(work_));
  const Result<std::string> said = OutputOfContained(unpack);
  if (!said.ok()) return Explain(said.status(), "unpacked");
  ASSIGN_OR_RETURN(const timespec ended, FileSystemTime(work_));
  std::string tree = work_ + "/" + kTreeDirectory;
  RETURN_IF_ERROR(SettleDirectoryTimes(tree, begun, ended));
  std::error_code ignored;  // It goes with the working directory anyhow; this makes room.
  std::filesystem::remove_all(work_ + "/" + kLayersDirectory, ignored);
  return tree;
}

}  // namespace cli
