#include "fetcher/origins/s3_backend.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <string_view>
#include <utility>

#include "cachecore/base/hex.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/url/url.h"
#include "fetcher/auth/renewing_authorizer.h"
#include "fetcher/source/source_config.h"

namespace fetcher {
namespace {

using cachecore::ParseUrl;
using cachecore::Result;
using cachecore::SecretEnvironment;
using cachecore::Url;
using Kind = Failure::Kind;

constexpr size_t kMaxCodeSize = 64;
constexpr cachecore::Duration kProcessLimit = std::chrono::seconds(60);
// Of the empty body that all our requests have.
constexpr char kEmptySha256[] =
    "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// What stands between <NAME> and </NAME>, if it is a word.
std::string WordIn(const std::string& xml, const std::string& name) {
  const std::string open = "<" + name + ">";
  const size_t begin = xml.find(open);
  if (begin == std::string::npos) return "";
  const size_t end = xml.find("</" + name + ">", begin);
  if (end == std::string::npos) return "";
  const std::string word = xml.substr(begin + open.size(), end - begin - open.size());
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '.'; };
  return word.size() <= kMaxCodeSize && std::all_of(word.begin(), word.end(), fits) ? word : "";
}

bool IsOfCredentials(const std::string& code) {
  return code == "ExpiredToken" || code == "ExpiredTokenException" || code == "InvalidToken" ||
         code == "TokenRefreshRequired";
}

class S3Authorizer : public RenewingAuthorizer {
 public:
  S3Authorizer(Bring bring, HttpEngine* engine)
      : RenewingAuthorizer("the S3 credentials", std::move(bring), engine->calls(),
                           cachecore::Clock::Monotonic()) {}

  bool IsRefusal(const HttpAnswer& answer) const override {
    return RenewingAuthorizer::IsRefusal(answer) ||
           (answer.status == 400 && IsOfCredentials(S3ErrorCode(answer.error_body)));
  }
  Failure Explain(const HttpAnswer& answer, Failure failure) const override {
    return ExplainS3Failure(answer.error_body, std::move(failure));
  }
};

HttpSite MakeSite(const std::string& url, const HttpRoute& route, const S3Options& options,
                  std::shared_ptr<const SecretEnvironment> environment, HttpEngine* engine) {
  S3Options resolved = options;
  resolved.region = S3Region(options, engine->files());
  auto bring = [resolved, environment, engine](const Renewal& renewal,
                                               const Cancel& cancel) -> Result<BroughtCredentials> {
    ASSIGN_OR_RETURN(S3Keys keys, BringS3Credentials(resolved, *environment, engine->files(),
                                                     renewal.Limit(kProcessLimit), cancel));
    BroughtCredentials brought;
    brought.credentials.sigv4 = "aws:amz:" + resolved.region + ":s3";
    brought.credentials.user = keys.access_key;
    brought.credentials.password = keys.secret_key;
    brought.credentials.headers = {kEmptySha256};
    if (!keys.session_token.empty()) {
      brought.credentials.headers.push_back("x-amz-security-token: " + keys.session_token);
    }
    brought.lifetime = keys.lifetime;
    return brought;
  };
  HttpSite site;
  site.base_url = S3BaseUrl(url, resolved);
  site.route = route;
  site.shown_base_url = url;
  site.authorizer = std::make_shared<S3Authorizer>(std::move(bring), engine);
  site.encode_key = &S3Encode;
  return site;
}

}  // namespace

S3Backend::S3Backend(const std::string& url, const HttpRoute& route, const S3Options& options,
                     std::shared_ptr<const SecretEnvironment> environment, HttpEngine* engine)
    : http_(MakeSite(url, route, options, std::move(environment), engine), engine) {}

std::unique_ptr<Transfer> S3Backend::Probe(const std::string& key, bool afresh, ProbeDone done) {
  return http_.Probe(key, afresh, std::move(done));
}

std::unique_ptr<Transfer> S3Backend::Fetch(FetchRequest request, FetchSink* sink) {
  return http_.Fetch(std::move(request), sink);
}

std::string S3BaseUrl(const std::string& url, const S3Options& options) {
  const Url place = ParseUrl(url).value_or(Url());
  const std::string bucket = place.authority;
  const std::string prefix = S3Encode(place.path);
  std::string endpoint = options.endpoint;
  while (endpoint.ends_with('/')) endpoint.pop_back();
  // A bucket with a dot in its name is not covered by a certificate for *.ENDPOINT.
  const bool is_aws = endpoint.empty();
  const bool path_style = options.path_style || (is_aws && bucket.find('.') != std::string::npos);
  if (is_aws) endpoint = "https://s3." + options.region + ".amazonaws.com";
  if (path_style) return endpoint + "/" + bucket + prefix;
  const Url server = ParseUrl(endpoint).value_or(Url());
  return server.scheme + "://" + bucket + "." + server.authority + prefix;
}

std::string S3Encode(const std::string& percent_encoded) {
  const Result<std::string> decoded = cachecore::PercentDecode(percent_encoded);
  std::string encoded;
  for (const char c : decoded.ok() ? *decoded : percent_encoded) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || std::string_view("/-._~").find(c) != std::string_view::npos) {
      encoded.push_back(c);
    } else {
      encoded += '%' + cachecore::UpperHexText({&c, 1});
    }
  }
  return encoded;
}

std::string S3ErrorCode(const std::string& xml) { return WordIn(xml, "Code"); }

Failure ExplainS3Failure(const std::string& xml, Failure failure) {
  const std::string code = S3ErrorCode(xml);
  if (code.empty()) return failure;
  failure.cause += ": " + code;
  const auto as = [&failure](int error, const std::string& what) {
    failure.error = error;
    failure.cause += " (" + what + ")";
    return failure;
  };
  if (code == "NoSuchKey") return as(ENOENT, "the bucket has no such key");
  if (code == "NoSuchBucket") return as(ENOENT, "there is no such bucket");
  if (code == "AccessDenied") return as(EACCES, "the credentials may not read it");
  if (code == "InvalidAccessKeyId") return as(EACCES, "the access key is not known there");
  if (code == "SignatureDoesNotMatch") {
    return as(EACCES, "the secret key does not belong to the access key");
  }
  if (IsOfCredentials(code)) return as(EACCES, "the session token is not, or no longer, accepted");
  if (code == "RequestTimeTooSkewed") {
    failure.kind = Kind::kRetry;
    return as(EACCES, "this machine's clock is wrong; set it");
  }
  if (code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed" ||
      code == "IllegalLocationConstraintException") {
    const std::string region = WordIn(xml, "Region");
    return as(EACCES, "the bucket is in another region: --s3-region" +
                          (region.empty() ? "" : "=" + region));
  }
  return failure;
}

}  // namespace fetcher
