#include "host/registries/skopeo.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <regex>

#include "cachecore/system/subprocess.h"
#include "cachecore/url/proxy_settings.h"
#include "host/registries/registry_policy.h"

namespace host {

using cachecore::Deadline;
using cachecore::FindTool;
using cachecore::Result;
using cachecore::RunTool;
using cachecore::Status;
using cachecore::ToolEnd;

namespace {

constexpr size_t kErrorBytesMax = 4096;

int ErrnoOf(const std::string& sentence) {
  const auto says = [&sentence](const char* words) {
    return sentence.find(words) != std::string::npos;
  };
  if (says("manifest unknown") || says("name unknown") || says("blob unknown")) return ENOENT;
  if (says("unauthorized") || says("authentication required") || says("denied")) return EACCES;
  return EIO;
}

// Go's programs quote a proxy that they can't use.
std::string WithoutProxyUsers(std::string sentence) {
  const cachecore::ProxySettings proxy = cachecore::ProxySettings::FromEnvironment();
  for (const std::string& url : {proxy.http, proxy.https}) {
    const std::string user = cachecore::ProxyUser(url);
    if (user.empty()) continue;
    for (size_t i = sentence.find(user); i != std::string::npos; i = sentence.find(user)) {
      sentence.erase(i, user.size());
    }
  }
  return sentence;
}

}  // namespace

std::vector<std::string> SkopeoPolicyFlags() {
  const std::string file = RegistryPolicyFile();
  // Named, since skopeo may run with another home directory.
  return {file.empty() ? "--insecure-policy" : "--policy=" + file};
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
  return WithoutProxyUsers(std::move(sentence));
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
  } else if (!access_.has_default_auth_file) {  // Else it finds the same files by itself.
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
  if (!access_.ca_file.empty()) {
    // It would believe the system's authorities beside what is in its --cert-dir.
    argv.insert(argv.begin(), {"/usr/bin/env", "SSL_CERT_FILE=" + access_.ca_file,
                               "SSL_CERT_DIR=" + certificates_ + "/none"});
  }
  ASSIGN_OR_RETURN(ToolEnd end, RunTool(argv, deadline));
  if (end.exit_code == 0) return std::move(end.output);
  const std::string sentence = SkopeoSentence(end.errors);
  return Status(
      ErrnoOf(sentence),
      sentence.empty() ? "skopeo ended with exit code " + std::to_string(end.exit_code) : sentence);
}

}  // namespace host
