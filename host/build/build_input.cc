#include "host/build/build_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string_view>
#include <utility>

#include "cachecore/base/unique_fd.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using Kind = BuildInput::Kind;

constexpr std::pair<std::string_view, Kind> kArchivePrefixes[] = {
    {"docker-archive:", Kind::kDockerArchive}, {"oci-archive:", Kind::kOciArchive}};
constexpr char kDockerScheme[] = "docker://";
constexpr char kOciScheme[] = "oci://";
constexpr char kWhatMayBe[] =
    "give a directory, an OCI layout (oci-layout:DIR[:TAG]), an archive "
    "(docker-archive:FILE[:NAME] "
    "or oci-archive:FILE[:TAG]) or an image in a registry (docker://REGISTRY/REPO:TAG)";
constexpr size_t kTarMagicAt = 257;

std::string Absolute(const std::string& path) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error).lexically_normal();
  std::string made = absolute.string();
  while (made.size() > 1 && made.back() == '/') made.pop_back();
  return made;
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// A tar archive, plain or compressed with gzip, zstd, xz or bzip2.
bool LooksLikeArchive(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char head[512] = {};
  if (!fd.valid() || read(fd.get(), head, sizeof head) < 2) return false;
  const std::string_view all(head, sizeof head);
  return all.substr(kTarMagicAt).starts_with("ustar") || all.starts_with("\x1f\x8b") ||
         all.starts_with("\x28\xb5\x2f\xfd") ||
         all.starts_with(
             "\xfd"
             "7zXZ") ||
         all.starts_with("BZh");
}

Result<BuildInput> OfPath(const std::string& text) {
  BuildInput input;
  input.text = text;
  input.path = Absolute(text);
  struct stat info = {};
  if (stat(input.path.c_str(), &info) != 0) {
    const Status why = Status::FromErrno(errno, text);
    return Status(why.error(), why.message() + "; " + kWhatMayBe);
  }
  if (S_ISDIR(info.st_mode)) {
    const bool is_layout = Exists(input.path + "/oci-layout") && Exists(input.path + "/index.json");
    input.kind = is_layout ? Kind::kLayout : Kind::kDirectory;
    return input;
  }
  if (S_ISREG(info.st_mode) && LooksLikeArchive(input.path)) {
    input.kind = Kind::kArchive;
    return input;
  }
  return Status(EINVAL, text + " is neither a directory nor an archive; " + kWhatMayBe);
}

Result<BuildInput> OfArchive(const std::string& text, const std::string& rest, Kind kind) {
  const size_t colon = rest.find(':');
  ASSIGN_OR_RETURN(BuildInput input, OfPath(rest.substr(0, colon)));
  input.text = text;
  if (input.kind != Kind::kArchive) return Status(EINVAL, text + " is not an archive");
  input.kind = kind;
  if (colon != std::string::npos) input.tag = rest.substr(colon + 1);
  return input;
}

}  // namespace

Result<BuildInput> ParseBuildInput(const std::string& text) {
  for (const auto& [prefix, kind] : kArchivePrefixes) {
    if (text.starts_with(prefix)) return OfArchive(text, text.substr(prefix.size()), kind);
  }
  const bool is_docker = text.starts_with(kDockerScheme);
  if (!is_docker && !IsImageReference(text)) return OfPath(text);
  BuildInput input;
  input.text = text;
  ASSIGN_OR_RETURN(
      input.reference,
      ParseImageReference(is_docker ? kOciScheme + text.substr(sizeof kDockerScheme - 1) : text));
  if (input.reference.kind == ImageReference::Kind::kBlob) {
    return Status(EINVAL, text + " is one blob, not an image; " + kWhatMayBe);
  }
  if (input.reference.kind == ImageReference::Kind::kRegistry) {
    input.kind = Kind::kRegistry;
    return input;
  }
  input.kind = Kind::kLayout;
  input.path = input.reference.directory;
  input.tag = input.reference.tag;
  if (!Exists(input.path + "/index.json")) {
    std::error_code error;
    const bool is_directory = std::filesystem::is_directory(input.path, error);
    return Status(ENOENT,
                  text + " is not an OCI layout: it has no index.json" +
                      (is_directory ? "; a directory of files is given as " + input.path : ""));
  }
  return input;
}

}  // namespace host
