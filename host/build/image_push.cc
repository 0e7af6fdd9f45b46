#include "cli/image_push.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "cli/contained_program.h"
#include "cli/content_digest.h"
#include "cli/files.h"
#include "cli/holdfast_manifest.h"
#include "cli/manifest_origin.h"
#include "cli/process.h"
#include "cli/skopeo.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

// skopeo reads "oci:PATH:TAG", so a path with a colon is given by a link.
constexpr char kLayoutLink[] = "layout";
constexpr char kDigestFile[] = "digest";

Result<std::string> LayoutManifest(const std::string& layout) {
  ASSIGN_OR_RETURN(const ImageReference reference, ParseImageReference("oci-layout:" + layout));
  const RegistryAccess none;
  Result<std::string> text =
      MakeManifestOrigin(reference, none)
          ->Manifest(reference.tag, Deadline(std::chrono::seconds(1)));
  if (!text.ok()) return std::move(text).status().WithContext(layout);
  return text;
}

}  // namespace

Result<std::string> PushImage(const std::string& layout, const ImageReference& target,
                              const RegistryAccess& access, Progress* progress) {
  ASSIGN_OR_RETURN(const std::string manifest, LayoutManifest(layout));
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
  const std::string path = std::filesystem::absolute(layout, error).string();
  if (symlink(path.c_str(), (work + "/" + kLayoutLink).c_str()) != 0) {
    return Status::FromErrno(errno, work);
  }

  ContainedProgram push;
  push.argv = {program};
  for (std::string& flag : SkopeoPolicyFlags()) push.argv.push_back(std::move(flag));
  push.argv.insert(push.argv.end(), {"copy", "--quiet", "--preserve-digests",
                                     std::string("--digestfile=") + kDigestFile});
  for (std::string& flag : skopeo->AccessFlags("dest-")) push.argv.push_back(std::move(flag));
  push.argv.push_back(std::string("oci:") + kLayoutLink);
  push.argv.push_back("docker://" + target.registry + "/" + target.repository + ":" + target.tag);
  push.directory = work;
  push.fence = ContainedProgram::Fence::kNone;
  push.own_environment = false;  // Proxies, credential helpers.
  push.on_progress = [progress](uint64_t bytes) { progress->At(bytes); };
  progress->Begin("pushing", image.erofs_bytes);
  ASSIGN_OR_RETURN(const ContainedEnd end, RunContained(push));
  if (end.exit_code != 0) {
    return Status(
        EIO, layout + " can't be pushed to " + target.Text() + ": " + SkopeoSentence(end.errors));
  }
  ASSIGN_OR_RETURN(const std::string pushed, ReadFile(work + "/" + kDigestFile));
  if (pushed != digest) {
    return Status(EBADMSG, target.Text() + ": the registry has " + pushed + " and not " + digest);
  }
  progress->End(BytesText(image.erofs_bytes));
  return digest;
}

}  // namespace cli
