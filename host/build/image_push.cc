#include "host/build/image_push.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "cachecore/base/digest.h"
#include "cachecore/system/files.h"
#include "cachecore/system/subprocess.h"
#include "host/build/contained_program.h"
#include "host/images/holdfast_manifest.h"
#include "host/images/manifest_origin.h"
#include "host/registries/skopeo.h"

namespace host {
namespace {

using cachecore::BytesText;
using cachecore::Deadline;
using cachecore::DigestOf;
using cachecore::FindTool;
using cachecore::Progress;
using cachecore::ReadFile;
using cachecore::Result;
using cachecore::Status;

// skopeo reads "oci:PATH:TAG", so a path with a colon is given by a link.
constexpr char kLayoutLink[] = "layout";
constexpr char kDigestFile[] = "digest";

Result<std::string> LayoutManifest(const ImageReference& layout) {
  const RegistryAccess none;
  Result<std::string> text =
      MakeManifestOrigin(layout, none)->Manifest(layout.tag, Deadline(std::chrono::seconds(1)));
  if (!text.ok()) return std::move(text).status().WithContext(layout.Text());
  return text;
}

// skopeo copies what a layout's tag names, or the only image of a layout.
Result<ImageReference> ParsePushed(const std::string& text) {
  ASSIGN_OR_RETURN(ImageReference layout, ParseLayoutArgument(text));
  if (layout.kind == ImageReference::Kind::kLayout && layout.digest.empty()) return layout;
  return Status(EINVAL, text + " can't be pushed; give the directory of an OCI layout, or " +
                            "oci-layout:DIR[:TAG]");
}

}  // namespace

Result<std::string> PushImage(const std::string& layout, const ImageReference& target,
                              const RegistryAccess& access, Progress* progress) {
  ASSIGN_OR_RETURN(const ImageReference source, ParsePushed(layout));
  ASSIGN_OR_RETURN(const std::string manifest, LayoutManifest(source));
  ASSIGN_OR_RETURN(const HoldfastManifest image, ParseHoldfastManifest(manifest, layout));
  const std::string digest = DigestOf(manifest);
  ASSIGN_OR_RETURN(const std::string program, FindTool("skopeo", "skopeo"));
  ASSIGN_OR_RETURN(const std::unique_ptr<Skopeo> skopeo, Skopeo::Make(access));
  std::error_code error;
  std::string work = std::filesystem::temp_directory_path(error).string() + "/holdfast-push-XXXXXX";
  if (error || mkdtemp(work.data()) == nullptr) return Status::FromErrno(errno, "make " + work);
  const std::shared_ptr<void> removed(nullptr, [&work](void*) {
    std::error_code ignored;
    std::filesystem::remove_all(work, ignored);
  });
  const std::string& path = source.directory;
  if (symlink(path.c_str(), (work + "/" + kLayoutLink).c_str()) != 0) {
    return Status::FromErrno(errno, work);
  }

  ContainedProgram push;
  push.argv = {program};
  for (std::string& flag : SkopeoPolicyFlags()) push.argv.push_back(std::move(flag));
  push.argv.insert(push.argv.end(), {"copy", "--quiet", "--preserve-digests",
                                     std::string("--digestfile=") + kDigestFile});
  for (std::string& flag : skopeo->AccessFlags("dest-")) push.argv.push_back(std::move(flag));
  const std::string tag = source.tag.empty() ? "" : ":" + source.tag;
  push.argv.push_back(std::string("oci:") + kLayoutLink + tag);
  push.argv.push_back("docker://" + target.registry + "/" + target.repository + ":" + target.tag);
  push.directory = work;
  push.fence = ContainedProgram::Fence::kNone;
  push.own_environment = false;  // Proxies, credential helpers.
  push.on_progress = [progress](uint64_t bytes) { progress->At(bytes); };
  progress->Begin("pushing", image.layers.front().bytes);
  ASSIGN_OR_RETURN(const ContainedEnd end, RunContained(push));
  if (end.exit_code != 0) {
    return Status(
        EIO, layout + " can't be pushed to " + target.Text() + ": " + SkopeoSentence(end.errors));
  }
  ASSIGN_OR_RETURN(const std::string pushed, ReadFile(work + "/" + kDigestFile));
  if (pushed != digest) {
    return Status(EBADMSG, target.Text() + ": the registry has " + pushed + " and not " + digest);
  }
  progress->End(BytesText(image.layers.front().bytes));
  return digest;
}

}  // namespace host
