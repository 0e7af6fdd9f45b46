#include "host/build/container_layers.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <vector>

#include "cachecore/base/digest.h"
#include "cachecore/base/json_fields.h"
#include "cachecore/system/files.h"
#include "cachecore/system/subprocess.h"
#include "host/images/holdfast_manifest.h"
#include "host/registries/skopeo.h"

namespace host {
namespace {

using cachecore::DigestHex;
using cachecore::FindProgram;
using cachecore::FindTool;
using cachecore::IsDigest;
using cachecore::JsonField;
using cachecore::JsonString;
using cachecore::JsonStrings;
using cachecore::Progress;
using cachecore::ReadFile;
using cachecore::ReadJsonFile;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;
using Kind = BuildInput::Kind;

// Names within the working directory, where the tools run: a path with a colon would be misread.
constexpr char kInputLink[] = "input";
constexpr char kLayersDirectory[] = "layers";
constexpr char kLayersTag[] = "image";
constexpr char kUnpackProgram[] = "holdfast-unpack";
constexpr char kTreeDirectory[] = "tree";
constexpr char kStargzAnnotation[] = "containerd.io/snapshot/stargz/toc.digest";

// Compressed in whatever way: the archive's own bytes tell.
bool IsTarLayer(const std::string& media_type) {
  for (const char* stem : {"application/vnd.oci.image.layer.v1.tar",
                           "application/vnd.oci.image.layer.nondistributable.v1.tar"}) {
    if (media_type == stem || media_type.starts_with(std::string(stem) + "+")) return true;
  }
  return false;
}

std::string BlobPath(const std::string& digest) {
  return std::string(kLayersDirectory) + "/blobs/sha256/" + DigestHex(digest);
}

// Of what is not in a registry.
std::string TransportOf(Kind kind) {
  return kind == Kind::kLayout       ? "oci"
         : kind == Kind::kOciArchive ? "oci-archive"
                                     : "docker-archive";
}

std::string RemoteName(const BuildInput& input) {
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
  if (why.message().find("o space left on device") != std::string::npos) {
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
  // Layers are taken as they are.
  copy.argv = {program, "--tmpdir=" + work_};
  for (std::string& flag : SkopeoPolicyFlags()) copy.argv.push_back(std::move(flag));
  copy.argv.insert(copy.argv.end(), {"copy", "--quiet", "--dest-oci-accept-uncompressed-layers"});
  if (is_remote) {
    for (std::string& flag : skopeo->AccessFlags("src-")) copy.argv.push_back(std::move(flag));
  }
  if (is_remote) {
    copy.argv.push_back(RemoteName(input_));
  } else {
    ASSIGN_OR_RETURN(const std::string transport, LocalTransport());
    copy.argv.push_back(transport + ":" + kInputLink +
                        (input_.tag.empty() ? "" : ":" + input_.tag));
  }
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

Result<std::string> ContainerLayers::LocalTransport() const {
  if (input_.kind != Kind::kArchive) return TransportOf(input_.kind);
  ContainedProgram look;
  ASSIGN_OR_RETURN(const std::string program, FindProgram(kUnpackProgram));
  look.argv = {program, "--transport", kInputLink};
  look.directory = work_;
  Result<std::string> transport = OutputOfContained(look);
  if (!transport.ok()) return Explain(transport.status(), "copied");
  if (!transport->empty()) return transport;
  return Explain(Status(EINVAL,
                        "it has neither a manifest.json, as a docker archive has, nor an "
                        "oci-layout, as an OCI archive has"),
                 "copied");
}

Result<std::string> ContainerLayers::ConfigOfCopy() {
  const auto blob = [this](const std::string& digest) -> Result<std::string> {
    if (!IsDigest(digest)) return Status(EBADMSG, "it names a blob without a sha256 digest");
    return ReadFile(work_ + "/" + BlobPath(digest));
  };
  ASSIGN_OR_RETURN(const json index, ReadJsonFile(work_ + "/" + kLayersDirectory + "/index.json"));
  const json& entries = JsonField(index, "manifests");
  if (!entries.is_array() || entries.size() != 1) {
    return Explain(Status(EBADMSG, "it is not one image"), "read");
  }
  const Result<std::string> text = blob(JsonString(entries[0], "digest"));
  if (!text.ok()) return Explain(text.status(), "read");
  const json manifest = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  Result<std::string> config = blob(JsonString(JsonField(manifest, "config"), "digest"));
  if (!config.ok()) return Explain(config.status(), "read");
  RETURN_IF_ERROR(FindLayers(manifest, *config));
  return config;
}

Status ContainerLayers::FindLayers(const json& manifest, const std::string& config) {
  const json rootfs = JsonField(json::parse(config, nullptr, /*allow_exceptions=*/false), "rootfs");
  const std::vector<std::string> diff_ids = JsonStrings(rootfs, "diff_ids");
  for (const json& layer : JsonField(manifest, "layers")) {
    const std::string type = JsonString(layer, "mediaType");
    if (type == kErofsLayerType) {
      return Status(EMEDIUMTYPE, input_.text + " is a Holdfast image already");
    }
    if (!IsTarLayer(type)) {
      return Explain(Status(EMEDIUMTYPE, "it has a layer of type '" + type + "', no tar archive"),
                     "unpacked");
    }
    const std::string digest = JsonString(layer, "digest");
    if (!IsDigest(digest) || layers_.size() == diff_ids.size()) {
      return Explain(Status(EBADMSG, "its config does not name each of its layers"), "read");
    }
    layers_.push_back({BlobPath(digest), diff_ids[layers_.size()],
                       JsonField(layer, "annotations").contains(kStargzAnnotation)});
  }
  return {};
}

Result<std::string> ContainerLayers::Unpack(Progress* progress) {
  ContainedProgram unpack;
  ASSIGN_OR_RETURN(const std::string program, FindProgram(kUnpackProgram));
  unpack.argv = {program, kTreeDirectory};
  for (const Layer& layer : layers_) {
    unpack.argv.insert(unpack.argv.end(),
                       {layer.path, layer.diff_id, layer.is_stargz ? "stargz" : "plain"});
  }
  unpack.directory = work_;
  unpack.written_bytes_max = bytes_max_;
  unpack.on_progress = [progress](uint64_t bytes) { progress->At(bytes); };
  progress->Begin("unpacking them", 0);
  const Result<std::string> said = OutputOfContained(unpack);
  if (!said.ok()) return Explain(said.status(), "unpacked");
  std::error_code ignored;  // It goes with the working directory anyhow; this makes room.
  std::filesystem::remove_all(work_ + "/" + kLayersDirectory, ignored);
  return work_ + "/" + kTreeDirectory;
}

}  // namespace host
