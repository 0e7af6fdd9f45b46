#include "fetcher/origins/registry_site.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "cachecore/url/url.h"
#include "fetcher/auth/docker_auth.h"
#include "fetcher/auth/registry_challenge.h"
#include "fetcher/http/http_call.h"
#include "fetcher/http/http_range.h"
#include "fetcher/source/local_files.h"
#include "fetcher/transfer/child_output.h"

namespace fetcher {
namespace {

using cachecore::ParseUrl;
using cachecore::Result;
using cachecore::Status;
using cachecore::Url;

constexpr char kPlainScheme[] = "oci+http://";
constexpr Duration kCallLimit = std::chrono::seconds(20);
// A helper that takes longer is given more time so often before requests are made without it.
constexpr int kSlowHelperTries = 2;

// Says in the registry's own words why, and where the credentials come from that it did not like.
class RegistryAuthorizer : public RenewingAuthorizer {
 public:
  RegistryAuthorizer(const RegistryConfig& config, Bring bring, HttpEngine* engine)
      : RenewingAuthorizer("the credentials for " + config.Registry(), std::move(bring),
                           engine->calls(), cachecore::Clock::Monotonic()),
        auth_files_(config.options.AuthFilesText()) {}

  Failure Explain(const HttpAnswer& answer, Failure failure) const override;

 private:
  const std::string auth_files_;
};

Failure RegistryAuthorizer::Explain(const HttpAnswer& answer, Failure failure) const {
  const std::string code = ParseErrorCode(answer.error_body);
  if (!code.empty()) failure.cause += " (" + code + ")";
  if (answer.status == 401 || answer.status == 403) {
    failure.cause += auth_files_.empty() ? "; there is no auth file (--auth-file)"
                                         : "; its credentials come from " + auth_files_;
  } else if (answer.status == 404 || answer.status == 410) {
    failure.cause += "; the registry has lost this blob: push the image again";
  }
  return failure;
}

// What a header line and a URL of the fetcher may have.
bool IsPlain(const std::string& text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

class Bringer {
 public:
  Bringer(const RegistryConfig& config, const Renewal& renewal, const Cancel& cancel)
      : config_(config), renewal_(renewal), cancel_(cancel), limit_(renewal.Limit(kCallLimit)) {}

  Result<BroughtCredentials> Bring();

 private:
  // What an unauthenticated request is answered; "" when it is let in.
  Result<std::string> AskForChallenge() const;
  Result<RegistryCredentials> FindCredentials();
  Result<RegistryCredentials> FindIn(const std::string& auth_file);
  Result<RegistryCredentials> AskHelper(const AuthChoice& choice);
  Result<BroughtCredentials> BringBasic();
  Result<BroughtCredentials> BringToken(const Challenge& challenge);
  Result<HttpReply> AskTokenService(const Challenge& challenge,
                                    const RegistryCredentials& credentials) const;

  const LocalFiles& Local() const {
    return config_.local != nullptr ? *config_.local : LocalFiles::Plain();
  }

  const RegistryConfig& config_;
  const Renewal& renewal_;
  const Cancel& cancel_;
  const Duration limit_;
  std::string found_in_;         // The auth file of the credentials.
  std::string helper_trouble_;   // Why the helper gave nothing, behind "; ".
  HttpCredentials certificate_;  // That alone, which goes to the registry's own host only.
};

Result<BroughtCredentials> Bringer::Bring() {
  ASSIGN_OR_RETURN(certificate_, ReadCredentialFiles(config_.certificate, Local()));
  std::string header = renewal_.challenge;
  if (header.empty()) {
    ASSIGN_OR_RETURN(header, AskForChallenge());
    if (header.empty()) return BroughtCredentials{certificate_, std::nullopt};
  }
  const std::vector<Challenge> challenges = ParseChallenges(header);
  for (const Challenge& challenge : challenges) {
    if (challenge.scheme == "bearer") return BringToken(challenge);
  }
  for (const Challenge& challenge : challenges) {
    if (challenge.scheme == "basic") return BringBasic();
  }
  return Status(EPROTO, config_.Registry() + " asks for neither Bearer nor Basic authentication");
}

Result<std::string> Bringer::AskForChallenge() const {
  HttpCall call;
  call.url = config_.ApiUrl();
  call.route = config_.route;
  call.local = &Local();
  call.client_cert = certificate_.client_cert;
  call.client_key = certificate_.client_key;
  ASSIGN_OR_RETURN(const HttpReply reply, CallHttp(call, limit_, cancel_));
  if (reply.answer.status == 401) return reply.answer.www_authenticate;
  // Redirects and the like: the requests for blobs report what is wrong.
  if (reply.answer.status < 500) return std::string();
  return Status(EIO, call.url + ": " + DescribeHttpStatus(reply.answer.status));
}

// Of the first file that has any.
Result<RegistryCredentials> Bringer::FindCredentials() {
  const std::vector<std::string> files = config_.options.AuthFiles();
  for (const std::string& file : files) {
    Result<RegistryCredentials> found = FindIn(file);
    // One of several that was removed since the mount counts as one without this registry.
    if (found.status().error() == ENOENT && files.size() > 1) continue;
    found_in_ = file;
    if (!found.ok() || !found->empty()) return found;
  }
  return RegistryCredentials();
}

Result<RegistryCredentials> Bringer::FindIn(const std::string& auth_file) {
  ASSIGN_OR_RETURN(const std::string text, Local().ReadSecret(auth_file, "auth file"));
  Result<DockerAuth> auth =
      auth_file.ends_with("/.dockercfg") ? DockerAuth::ParseOldest(text) : DockerAuth::Parse(text);
  if (!auth.ok()) return std::move(auth).status().WithContext(auth_file);
  AuthChoice choice = auth->Find(config_.Registry(), config_.Repository());
  if (choice.helper.empty()) return std::move(choice.credentials);
  return AskHelper(choice);
}

// A helper ends with an error, too, when it is asked about a server that it does not know, and a
// public image needs no credentials: without an answer the request is made with what else there is.
// If that is refused, the refusal's sentence tells about the helper.
Result<RegistryCredentials> Bringer::AskHelper(const AuthChoice& choice) {
  const std::string program = "docker-credential-" + choice.helper;
  const Result<std::string> output =
      RunForOutput({program, "get"}, choice.server + "\n", limit_, cancel_);
  const int error = output.status().error();
  const bool may_be_slow = error == ETIMEDOUT && renewal_.timeouts < kSlowHelperTries;
  if (error == ECANCELED || may_be_slow) return output.status();
  if (!output.ok()) {
    helper_trouble_ = "; " + output.status().message();
    return choice.credentials;
  }
  Result<RegistryCredentials> answer = ParseHelperAnswer(*output);
  if (answer.ok()) return answer;
  helper_trouble_ = "; " + program + ": " + answer.status().message();
  return choice.credentials;
}

Result<BroughtCredentials> Bringer::BringBasic() {
  ASSIGN_OR_RETURN(RegistryCredentials found, FindCredentials());
  if (found.user.empty() && found.password.empty()) {
    return Status(EACCES, config_.Registry() + " wants a user and a password, and " +
                              (config_.options.auth_file.empty()
                                   ? "there is no auth file (--auth-file)"
                                   : config_.options.AuthFilesText() + " has none for it") +
                              helper_trouble_);
  }
  BroughtCredentials brought{certificate_, std::nullopt};
  brought.credentials.user = std::move(found.user);
  brought.credentials.password = std::move(found.password);
  return brought;
}

Result<HttpReply> Bringer::AskTokenService(const Challenge& challenge,
                                           const RegistryCredentials& credentials) const {
  const auto parameter = [&challenge](const char* name) {
    const auto found = challenge.parameters.find(name);
    return found != challenge.parameters.end() ? found->second : std::string();
  };
  HttpCall call;
  call.url = parameter("realm");
  const Url realm = ParseUrl(call.url).value_or(Url());
  if (realm.scheme.empty() || !IsPlain(call.url)) {
    return Status(EPROTO, config_.Registry() + " names a bad token service");
  }
  if (realm.scheme != "https" && !(config_.IsPlainHttp() && realm.scheme == "http")) {
    return Status(EPROTO, config_.Registry() +
                              " names a token service that can't be reached by TLS, where no "
                              "credentials are sent");
  }
  call.route = config_.route;
  call.local = &Local();
  if (realm.IsSamePlace(ParseUrl(config_.ApiUrl()).value_or(Url()))) {
    call.client_cert = certificate_.client_cert;
    call.client_key = certificate_.client_key;
  }
  // Whatever scope the challenge speaks of: nothing more than reading this is ever asked for.
  const std::string scope = "repository:" + config_.Repository() + ":pull";
  std::string question =
      "service=" + UrlEncode(parameter("service")) + "&scope=" + UrlEncode(scope);
  if (!credentials.identity_token.empty()) {
    call.form = "grant_type=refresh_token&client_id=holdfast&" + question +
                "&refresh_token=" + UrlEncode(credentials.identity_token);
  } else {
    call.user = credentials.user;
    call.password = credentials.password;
    call.url += (realm.query.empty() ? "?" : "&") + question;
  }
  return CallHttp(call, limit_, cancel_);
}

Result<BroughtCredentials> Bringer::BringToken(const Challenge& challenge) {
  ASSIGN_OR_RETURN(const RegistryCredentials credentials, FindCredentials());
  Result<HttpReply> reply = AskTokenService(challenge, credentials);
  const std::string service = "the token service of " + config_.Registry();
  if (!reply.ok()) return std::move(reply).status().WithContext(service);
  if (reply->answer.status != 200) {
    return Status(EACCES, service + " answers " + DescribeHttpStatus(reply->answer.status) +
                              " to " +
                              (credentials.empty() ? "a request without credentials"
                                                   : "the credentials in " + found_in_) +
                              helper_trouble_);
  }
  Result<RegistryToken> token = ParseToken(reply->body);
  if (!token.ok()) return std::move(token).status().WithContext(service);
  BroughtCredentials brought{certificate_, token->lifetime};
  brought.credentials.headers = {"Authorization: Bearer " + token->token};
  return brought;
}

}  // namespace

bool RegistryConfig::IsPlainHttp() const {
  return options.plain_http || url.starts_with(kPlainScheme);
}

std::string RegistryConfig::Registry() const { return ParseUrl(url).value_or(Url()).authority; }

std::string RegistryConfig::Repository() const {
  const std::string path = ParseUrl(url).value_or(Url()).path;
  return path.size() < 2 ? "" : path.substr(1, path.size() - 2);
}

std::string RegistryConfig::ApiUrl() const {
  return std::string(IsPlainHttp() ? "http" : "https") + "://" + ApiHost(Registry()) + "/v2/";
}

HttpSite MakeRegistrySite(const RegistryConfig& config, HttpEngine* engine) {
  HttpSite site;
  site.base_url = config.ApiUrl() + config.Repository() + "/blobs/";
  site.shown_base_url = config.url;
  site.route = config.route;
  site.key_is_digest = true;
  RegistryConfig own = config;
  own.local = &engine->files();
  const auto bring = [own](const Renewal& renewal, const Cancel& cancel) {
    return BringRegistryCredentials(own, renewal, cancel);
  };
  site.authorizer = std::make_shared<RegistryAuthorizer>(own, bring, engine);
  return site;
}

Result<BroughtCredentials> BringRegistryCredentials(const RegistryConfig& config,
                                                    const Renewal& renewal, const Cancel& cancel) {
  return Bringer(config, renewal, cancel).Bring();
}

}  // namespace fetcher
