#include "host/images/origin_access.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

#include "cachecore/environment/secret_file.h"
#include "cachecore/url/proxy_settings.h"
#include "cachecore/url/url.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr std::array<const char*, 20> kVariables = {"HOME",
                                                    "XDG_RUNTIME_DIR",
                                                    "XDG_CONFIG_HOME",
                                                    "REGISTRY_AUTH_FILE",
                                                    "DOCKER_CONFIG",
                                                    "AWS_ENDPOINT_URL_S3",
                                                    "AWS_ENDPOINT_URL",
                                                    "AWS_REGION",
                                                    "AWS_DEFAULT_REGION",
                                                    "AWS_PROFILE",
                                                    "AWS_SHARED_CREDENTIALS_FILE",
                                                    "AWS_CONFIG_FILE",
                                                    "HTTP_PROXY",
                                                    "http_proxy",
                                                    "HTTPS_PROXY",
                                                    "https_proxy",
                                                    "ALL_PROXY",
                                                    "all_proxy",
                                                    "NO_PROXY",
                                                    "no_proxy"};

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

// The absolute path of a file that is there.
Status MakeAbsolute(const std::string& what, std::string* path) {
  if (path->empty()) return {};
  const std::unique_ptr<char, void (*)(void*)> real(realpath(path->c_str(), nullptr), std::free);
  if (!real || access(real.get(), R_OK) != 0) return Status::FromErrno(errno, what + " " + *path);
  // A link is kept, if its target may be exchanged; what it is relative to is not.
  if ((*path)[0] != '/') *path = real.get();
  return {};
}

Status CheckSecret(const std::string& what, std::string* path) {
  if (path->empty()) return {};
  RETURN_IF_ERROR(cachecore::CheckSecretFile(*path, what));
  return MakeAbsolute(what, path);
}

bool HasScheme(const std::vector<std::string>& urls, const std::string& scheme) {
  return std::any_of(urls.begin(), urls.end(), [&scheme](const std::string& url) {
    return cachecore::UrlScheme(url) == scheme;
  });
}

Status CheckEndpoint(const std::string& endpoint) {
  const Status bad(EINVAL,
                   "--s3-endpoint must be http://HOST[:PORT] or https://HOST[:PORT], without path");
  const std::optional<cachecore::Url> url = cachecore::ParseUrl(endpoint);
  return url && url->IsHttpServer() ? Status() : bad;
}

// A file in the home directory, if it is there.
std::string InHome(const std::string& name) {
  const std::string home = Environment("HOME");
  const std::string path = home + name;
  return !home.empty() && access(path.c_str(), F_OK) == 0 ? path : "";
}

Status ResolveS3(OriginAccess* s3) {
  const auto default_to = [](std::string* value, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (value->empty()) *value = Environment(name);
    }
  };
  default_to(&s3->s3_endpoint, {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
  while (s3->s3_endpoint.ends_with('/')) s3->s3_endpoint.pop_back();
  if (!s3->s3_endpoint.empty()) RETURN_IF_ERROR(CheckEndpoint(s3->s3_endpoint));
  default_to(&s3->s3_region, {"AWS_REGION", "AWS_DEFAULT_REGION"});
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-'; };
  if (!std::all_of(s3->s3_region.begin(), s3->s3_region.end(), fits)) {
    return Status(EINVAL, "--s3-region must be a name such as eu-central-1");
  }
  // Keys in the environment go before a profile that is named there, as everywhere.
  if (Environment("AWS_ACCESS_KEY_ID").empty()) default_to(&s3->s3_profile, {"AWS_PROFILE"});
  default_to(&s3->s3_credentials_file, {"AWS_SHARED_CREDENTIALS_FILE"});
  if (s3->s3_credentials_file.empty()) s3->s3_credentials_file = InHome("/.aws/credentials");
  default_to(&s3->s3_config_file, {"AWS_CONFIG_FILE"});
  if (s3->s3_config_file.empty()) s3->s3_config_file = InHome("/.aws/config");
  RETURN_IF_ERROR(CheckSecret("S3 credentials file", &s3->s3_credentials_file));
  return CheckSecret("AWS config file", &s3->s3_config_file);
}

// Secrets and certificates that would go nowhere, or in the open.
Status CheckUse(const OriginAccess& access, const std::vector<std::string>& urls) {
  const std::pair<const char*, bool> https_only[] = {
      {"--client-cert",
       !access.client_cert.empty() && !HasScheme(urls, "oci") && !HasScheme(urls, "oci+http")},
      {"--headers-file", !access.headers_file.empty()},
  };
  for (const auto& [flag, is_given] : https_only) {
    if (!is_given) continue;
    if (HasScheme(urls, "http")) {
      return Status(EINVAL, std::string(flag) +
                                " is for https: an http:// origin would have it sent in the open");
    }
    if (!HasScheme(urls, "https")) {
      return Status(EINVAL, std::string(flag) + " is for https:// origins, and there is none");
    }
  }
  if (!access.client_key.empty() && access.client_cert.empty()) {
    return Status(EINVAL, "--client-key needs --client-cert");
  }
  const bool s3 = !access.s3_endpoint.empty() || !access.s3_region.empty() ||
                  !access.s3_profile.empty() || access.s3_path_style;
  if (s3 && !HasScheme(urls, "s3")) {
    return Status(EINVAL, "the --s3-... options are for s3:// origins, and there is none");
  }
  return {};
}

}  // namespace

void OriginAccess::AddTo(CLI::App* app) {
  app->add_option("--ca-file", ca_file, "Trust these certificates for https (PEM)")
      ->type_name("FILE");
  app->add_option("--client-cert", client_cert, "Show this certificate to https origins (PEM)")
      ->type_name("FILE");
  app->add_option("--client-key", client_key,
                  "The certificate's key (PEM; default: in the certificate's file)")
      ->type_name("FILE");
  app->add_option("--headers-file", headers_file,
                  "Send these header lines to https origins (\"Name: value\")")
      ->type_name("FILE");
  app->add_option("--s3-endpoint", s3_endpoint, "The S3 server (default: AWS)")->type_name("URL");
  app->add_option("--s3-region", s3_region, "The bucket's region")->type_name("NAME");
  app->add_option("--s3-profile", s3_profile, "The profile in AWS's files that has the keys")
      ->type_name("NAME");
  app->add_flag("--s3-path-style", s3_path_style, "Name the bucket in the path, not in the host");
}

Result<OriginAccess> OriginAccess::Resolve(const std::vector<std::string>& urls) const {
  OriginAccess resolved = *this;
  RETURN_IF_ERROR(CheckUse(resolved, urls));
  RETURN_IF_ERROR(MakeAbsolute("CA file", &resolved.ca_file));
  RETURN_IF_ERROR(CheckSecret("headers file", &resolved.headers_file));
  if (!resolved.client_cert.empty() && resolved.client_key.empty()) {
    resolved.client_key = resolved.client_cert;
  }
  RETURN_IF_ERROR(MakeAbsolute("client certificate", &resolved.client_cert));
  RETURN_IF_ERROR(CheckSecret("client key", &resolved.client_key));
  if (HasScheme(urls, "s3")) RETURN_IF_ERROR(ResolveS3(&resolved));
  return resolved;
}

void OriginAccess::AddTo(nlohmann::json* source) const {
  const auto add = [](nlohmann::json* object, const char* name, const std::string& value) {
    if (!value.empty()) (*object)[name] = value;
  };
  add(source, "ca_file", ca_file);
  add(source, "client_cert", client_cert);
  add(source, "client_key", client_key);
  add(source, "headers_file", headers_file);
  nlohmann::json s3 = nlohmann::json::object();
  add(&s3, "endpoint", s3_endpoint);
  add(&s3, "region", s3_region);
  add(&s3, "profile", s3_profile);
  add(&s3, "credentials_file", s3_credentials_file);
  add(&s3, "config_file", s3_config_file);
  if (s3_path_style) s3["path_style"] = true;
  if (!s3.empty()) (*source)["s3"] = std::move(s3);
}

std::map<std::string, std::string> AccessEnvironment() {
  std::map<std::string, std::string> found;
  const bool has_secret_proxy = cachecore::ProxySettings::FromEnvironment().HasUser();
  for (const char* const name : kVariables) {
    const std::string_view variable = name;
    const bool is_proxy = variable.ends_with("_proxy") || variable.ends_with("_PROXY");
    const std::string value = Environment(name);
    if (!value.empty() && !(is_proxy && has_secret_proxy)) found[name] = value;
  }
  return found;
}

void SetAccessEnvironment(const std::map<std::string, std::string>& environment) {
  for (const char* const name : kVariables) {
    const auto found = environment.find(name);
    if (found == environment.end()) {
      unsetenv(name);
    } else {
      setenv(name, found->second.c_str(), /*overwrite=*/1);
    }
  }
}

}  // namespace host
