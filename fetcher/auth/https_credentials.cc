#include "fetcher/auth/https_credentials.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <utility>

#include "fetcher/auth/renewing_authorizer.h"
#include "fetcher/http/http_trouble.h"
#include "fetcher/source/local_files.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;

// What our requests say themselves.
constexpr const char* kOwnHeaders[] = {"range",      "if-range",          "content-length",
                                       "connection", "transfer-encoding", "accept-encoding"};

class FileAuthorizer : public RenewingAuthorizer {
 public:
  FileAuthorizer(const CredentialFiles& files, Bring bring, HttpEngine* engine)
      : RenewingAuthorizer("the headers and certificates", std::move(bring), engine->calls(),
                           cachecore::Clock::Monotonic()),
        has_certificate_(!files.client_cert.empty()) {}

  // Servers answer a certificate that they don't take with 400 as often as with 403.
  bool IsRefusal(const HttpAnswer& answer) const override {
    return RenewingAuthorizer::IsRefusal(answer) || (has_certificate_ && answer.status == 400);
  }
  Failure Explain(const HttpAnswer& answer, Failure failure) const override {
    if (!IsRefusal(answer)) {
      failure.cause += CureOf(answer, "https:", false);
      return failure;
    }
    failure.error = EACCES;
    failure.cause +=
        has_certificate_ ? " (with the client certificate)" : " (with the headers file)";
    failure.cause += "; renew what it has";
    return failure;
  }

 private:
  const bool has_certificate_;
};

}  // namespace

Result<std::vector<std::string>> ParseHeaderLines(std::string_view text) {
  std::vector<std::string> lines;
  int number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line(text.substr(begin, end - begin));
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    const auto bad = [number](const std::string& what) {
      return Status(EINVAL, "line " + std::to_string(number) + " " + what);
    };
    const size_t colon = line.find(':');
    std::string name = line.substr(0, colon);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const auto is_token = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; };
    if (colon == std::string::npos || colon == 0 ||
        !std::all_of(name.begin(), name.end(), is_token)) {
      return bad("is not \"Name: value\"");
    }
    const auto is_control = [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; };
    if (std::any_of(line.begin(), line.end(), is_control)) return bad("has a control character");
    // libcurl takes "Name:" for the wish to leave that header out.
    if (line.find_first_not_of(" \t", colon + 1) == std::string::npos) return bad("has no value");
    for (const char* own : kOwnHeaders) {
      if (name == own) return bad("sets " + name + ", which the fetcher does itself");
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

Result<HttpCredentials> ReadCredentialFiles(const CredentialFiles& files, const LocalFiles& local) {
  HttpCredentials credentials;
  if (!files.headers.empty()) {
    ASSIGN_OR_RETURN(const std::string text, local.ReadSecret(files.headers, "headers file"));
    auto lines = ParseHeaderLines(text);
    if (!lines.ok()) return std::move(lines).status().WithContext("headers file " + files.headers);
    credentials.headers = std::move(lines).value();
  }
  if (files.client_cert.empty()) return credentials;
  // The certificate alone is no secret.
  ASSIGN_OR_RETURN(credentials.client_cert,
                   local.ReadPublic(files.client_cert, "client certificate"));
  const std::string& key = files.client_key.empty() ? files.client_cert : files.client_key;
  ASSIGN_OR_RETURN(credentials.client_key, local.ReadSecret(key, "client key"));
  return credentials;
}

std::shared_ptr<HttpAuthorizer> MakeFileAuthorizer(const CredentialFiles& files,
                                                   HttpEngine* engine) {
  auto bring = [files, engine](const Renewal&, const Cancel&) -> Result<BroughtCredentials> {
    ASSIGN_OR_RETURN(HttpCredentials credentials, ReadCredentialFiles(files, engine->files()));
    return BroughtCredentials{std::move(credentials), std::nullopt};
  };
  return std::make_shared<FileAuthorizer>(files, std::move(bring), engine);
}

}  // namespace fetcher
