#include "cli/skopeo.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <regex>

#include "cli/process.h"

namespace cli {

using cachecore::Result;
using cachecore::Status;

namespace {

constexpr size_t kErrorBytesMax = 4096;
constexpr char kUserPolicy[] = "/.config/containers/policy.json";
constexpr char kSystemPolicy[] = "/etc/containers/policy.json";

int ErrnoOf(const std::string& sentence) {
  const auto says = [&sentence](const char* words) {
    return sentence.find(words) != std::string::npos;
  };
  if (says("manifest unknown") || says("name unknown") || says("blob unknown")) return ENOENT;
  if (says("unauthorized") || says("authentication required") || says("denied")) return EACCES;
  return EIO;
}

}  // namespace

std::vector<std::string> SkopeoPolicyFlags() {
  const char* const home = std::getenv("HOME");
  const std::string own = home != nullptr ? std::string(home) + kUserPolicy : "";
  // Named, since skopeo may run with another home directory.
  if (!own.empty() && access(own.c_str(), F_OK) == 0) return {"--policy=" + own};
  if (access(kSystemPolicy, F_OK) == 0) return {};
  return {"--insecure-policy"};
}

std::string SkopeoSentence(const std::string& all_errors) {
  // Its last words; regular expressions take a stack as deep as what they look at is long.
  const std::string errors = all_errors.size() <= kErrorBytesMax
                                 ? all_errors
                                 : all_errors.substr(all_errors.size() - kErrorBytesMax);
  std::string sentence = errors;
  // time="..." level=fatal msg="..."
  if (const size_t message = errors.rfind("msg=\""); message != std::string::npos) {
    sentence.clear();
    for (size_t i = message + 5; i < errors.size() && errors[i] != '"'; ++i) {
      if (errors[i] == '\\' && i + 1 < errors.size()) ++i;
      sentence += errors[i];
    }
  }
  static const std::regex prefix("^Error parsing image name \"[^\"]*\": ");
  static const std::regex query(R"(\?[^" ]*)");  // May hold a signature.
  sentence = std::regex_replace(sentence, prefix, "");
  sentence = std::regex_replace(sentence, query, "");
  while (!sentence.empty() && sentence.back() == '\n') sentence.pop_back();
  return sentence;
}

Result<std::unique_ptr<Skopeo>> Skopeo::Make(const RegistryAccess& access) {
  ASSIGN_OR_RETURN(std::string program, FindTool("skopeo", "skopeo"));
  std::unique_ptr<Skopeo> made(new Skopeo(std::move(program), access));
  RETURN_IF_ERROR(made->LinkCertificates());
  return made;
}

Skopeo::~Skopeo() {
  std::error_code ignored;
  if (!certificates_.empty()) std::filesystem::remove_all(certificates_, ignored);
}

Status Skopeo::LinkCertificates() {
  if (access_.ca_file.empty() && access_.client_cert.empty()) return {};
  std::error_code error;
  std::string directory =
      std::filesystem::temp_directory_path(error).string() + "/holdfast-certificates-XXXXXX";
  if (error || mkdtemp(directory.data()) == nullptr) {
    return Status::FromErrno(error ? error.value() : errno, "make " + directory);
  }
  certificates_ = directory;
  const auto link = [&directory](const std::string& file, const char* name) {
    const std::string path = directory + "/" + name;
    if (file.empty() || symlink(file.c_str(), path.c_str()) == 0) return Status();
    return Status::FromErrno(errno, "make " + path);
  };
  RETURN_IF_ERROR(link(access_.ca_file, "ca.crt"));
  RETURN_IF_ERROR(link(access_.client_cert, "client.cert"));
  // One file may hold both.
  return link(access_.client_key.empty() ? access_.client_cert : access_.client_key, "client.key");
}

std::vector<std::string> Skopeo::AccessFlags(const std::string& side) const {
  std::vector<std::string> flags;
  if (access_.auth_file.empty()) {
    flags.push_back(side.empty() ? "--no-creds" : "--" + side + "no-creds");
  } else {
    flags.push_back("--" + side + "authfile=" + access_.auth_file);
  }
  if (!certificates_.empty()) flags.push_back("--" + side + "cert-dir=" + certificates_);
  if (access_.plain_http) flags.push_back("--" + side + "tls-verify=false");
  return flags;
}

Result<std::string> Skopeo::Run(const std::vector<std::string>& arguments,
                                const Deadline& deadline) const {
  std::vector<std::string> argv = {program_};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  ASSIGN_OR_RETURN(ToolEnd end, RunTool(argv, deadline));
  if (end.exit_code == 0) return std::move(end.output);
  const std::string sentence = SkopeoSentence(end.errors);
  return Status(
      ErrnoOf(sentence),
      sentence.empty() ? "skopeo ended with exit code " + std::to_string(end.exit_code) : sentence);
}

}  // namespace cli
