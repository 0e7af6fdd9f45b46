#include "host/images/image_identity.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <set>
#include <sstream>
#include <string_view>
#include <vector>

namespace host {
namespace {

using Names = std::set<std::string_view>;

struct Signature {
  Names needed;    // All of them make it one.
  Names optional;  // Go with it.
};

const std::vector<Signature>& Signatures() {
  static const std::vector<Signature> kSignatures = {
      // AWS, version 4.
      {{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Signature"},
       {"X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Security-Token", "X-Amz-Content-Sha256",
        "X-Amz-User-Agent", "x-id"}},
      // AWS, version 2.
      {{"AWSAccessKeyId", "Signature", "Expires"}, {"x-amz-security-token"}},
      // Google, version 4.
      {{"X-Goog-Algorithm", "X-Goog-Credential", "X-Goog-Date", "X-Goog-Signature"},
       {"X-Goog-Expires", "X-Goog-SignedHeaders", "X-Goog-Content-Sha256"}},
      // Google, version 2.
      {{"GoogleAccessId", "Signature", "Expires"}, {}},
      // Azure: shared access signatures of an account, a service and a user delegation.
      {{"sv", "sig"},
       {"se",    "si",  "sip", "sp",  "spr", "sr",   "srt", "ss",  "st",    "skoid",
        "sktid", "skt", "ske", "sks", "skv", "scid", "sdd", "ses", "saoid", "suoid"}},
      // CloudFront, with a canned and with a custom policy.
      {{"Expires", "Signature", "Key-Pair-Id"}, {"Hash-Algorithm"}},
      {{"Policy", "Signature", "Key-Pair-Id"}, {"Hash-Algorithm"}},
  };
  return kSignatures;
}

std::vector<std::string> Split(const std::string& text, char divider) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, divider);) parts.push_back(part);
  return parts;
}

std::string_view NameOf(const std::string& parameter) {
  return std::string_view(parameter).substr(0, parameter.find('='));
}

// In lower case.
constexpr std::string_view kNoIdentity[] = {
    "authorization",
    "proxy-authorization",
    "cookie",
    "private-token",
    "job-token",
    "deploy-token",
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-amz-date",
    "x-goog-api-key",
    "x-jfrog-art-api",
    "x-vault-token",
    "x-gitlab-token",
    "x-ms-date",
    "x-ms-version",
    "x-csrf-token",
    "user-agent",
    "referer",
    "x-request-id",
    "x-forwarded-for",
    "cf-access-client-id",
    "cf-access-client-secret",
};

}  // namespace

std::string IdentityOfQuery(const std::string& query) {
  if (query.empty()) return "";
  std::vector<std::string> parameters = Split(query.substr(1), '&');
  Names present;
  for (const std::string& parameter : parameters) present.insert(NameOf(parameter));
  Names dropped;
  for (const Signature& signature : Signatures()) {
    const auto has = [&](std::string_view name) { return present.count(name) > 0; };
    if (!std::all_of(signature.needed.begin(), signature.needed.end(), has)) continue;
    dropped.insert(signature.needed.begin(), signature.needed.end());
    dropped.insert(signature.optional.begin(), signature.optional.end());
  }
  std::string left;
  for (const std::string& parameter : parameters) {
    if (dropped.count(NameOf(parameter)) > 0) continue;
    left += (left.empty() ? "?" : "&") + parameter;
  }
  return left == "?" ? "" : left;
}

std::string IdentityOfHeaders(const std::string& text) {
  std::vector<std::string> lines;
  for (std::string line : Split(text, '\n')) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.front() == '#') continue;
    const size_t colon = std::min(line.find(':'), line.size());
    for (size_t i = 0; i < colon; ++i) {
      line[i] = static_cast<char>(std::tolower(static_cast<unsigned char>(line[i])));
    }
    const std::string_view name = std::string_view(line).substr(0, colon);
    const bool is_known =
        std::find(std::begin(kNoIdentity), std::end(kNoIdentity), name) != std::end(kNoIdentity);
    if (!is_known) lines.push_back(line);
  }
  std::sort(lines.begin(), lines.end());
  std::string joined;
  for (const std::string& line : lines) joined += line + "\n";
  return joined;
}

}  // namespace host
