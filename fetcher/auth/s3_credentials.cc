#include "fetcher/auth/s3_credentials.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "fetcher/auth/aws_profile.h"
#include "fetcher/source/local_files.h"
#include "fetcher/transfer/child_output.h"

namespace fetcher {
namespace {

using cachecore::Duration;
using cachecore::Result;
using cachecore::SecretEnvironment;
using cachecore::Status;
using nlohmann::json;

// They are fetched again after that, whatever their own expiry says.
constexpr std::chrono::seconds kLongestKeyLifetime = std::chrono::hours(365 * 24);

std::string ProfileName(const S3Options& options) {
  return options.profile.empty() ? "default" : options.profile;
}

// Seconds since 1970 of "2030-01-02T03:04:05Z", with a fraction or an offset in place of the Z.
std::optional<int64_t> ParseTime(const std::string& text) {
  std::tm time = {};
  const char* rest = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &time);
  if (rest == nullptr) return std::nullopt;
  int64_t seconds = timegm(&time);
  if (*rest == '.') {
    for (++rest; *rest >= '0' && *rest <= '9';) ++rest;
  }
  if (std::string_view(rest) == "Z") return seconds;
  std::tm offset = {};
  const bool has_sign = *rest == '+' || *rest == '-';
  const char* end = has_sign ? strptime(rest + 1, "%H:%M", &offset) : nullptr;
  if (end == nullptr || *end != '\0') return std::nullopt;
  const int64_t east = (offset.tm_hour * int64_t{60} + offset.tm_min) * 60;
  return *rest == '+' ? seconds - east : seconds + east;
}

Result<S3Keys> RunProcess(const std::string& command, const std::string& path, Duration limit,
                          const Cancel& cancel) {
  const std::string name = "credential_process of " + path;
  auto argv = SplitCommand(command);
  if (!argv.ok()) return std::move(argv).status().WithContext(name);
  auto output = RunForOutput(*argv, "", limit, cancel);
  if (!output.ok()) return std::move(output).status().WithContext(name);
  auto keys = ParseProcessCredentials(*output, std::time(nullptr));
  explicit_bzero(output->data(), output->size());
  if (!keys.ok()) return std::move(keys).status().WithContext(name);
  return keys;
}

// The keys of one profile in one file; nullopt if it has none.
Result<std::optional<S3Keys>> FromFile(const std::string& path, const std::string& section,
                                       const LocalFiles& local, Duration limit,
                                       const Cancel& cancel) {
  if (path.empty()) return std::optional<S3Keys>();
  auto text = local.ReadSecret(path, "S3 credentials file");
  if (text.status().error() == ENOENT) return std::optional<S3Keys>();
  if (!text.ok()) return std::move(text).status();
  AwsProfile profile = ParseAwsProfile(*text, section);
  explicit_bzero(text->data(), text->size());
  const std::string secret = profile["aws_secret_access_key"];
  const std::string access = profile["aws_access_key_id"];
  if (!access.empty() && !secret.empty()) {
    return std::optional<S3Keys>({access, secret, profile["aws_session_token"], std::nullopt});
  }
  const std::string process = profile["credential_process"];
  if (process.empty()) return std::optional<S3Keys>();
  ASSIGN_OR_RETURN(S3Keys keys, RunProcess(process, path, limit, cancel));
  return std::optional<S3Keys>(std::move(keys));
}

// Sections other than the default one are called "profile NAME" in the config file.
std::string ConfigSection(const S3Options& options) {
  const std::string name = ProfileName(options);
  return name == "default" ? name : "profile " + name;
}

}  // namespace

Result<S3Keys> ParseProcessCredentials(std::string_view text, int64_t now_unix_s) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Status(EBADMSG, "it printed no JSON object");
  if (root.value("/Version"_json_pointer, json()) != 1) {
    return Status(EBADMSG, "it printed an object whose Version is not 1");
  }
  const auto string_of = [&root](const char* name) {
    const auto it = root.find(name);
    return it != root.end() && it->is_string() ? it->get<std::string>() : "";
  };
  S3Keys keys{string_of("AccessKeyId"), string_of("SecretAccessKey"), string_of("SessionToken"),
              std::nullopt};
  if (keys.access_key.empty() || keys.secret_key.empty()) {
    return Status(EBADMSG, "it printed no AccessKeyId or no SecretAccessKey");
  }
  if (!root.contains("Expiration") || root["Expiration"].is_null()) return keys;
  const std::optional<int64_t> expires = ParseTime(string_of("Expiration"));
  if (!expires) return Status(EBADMSG, "it printed an Expiration that is no time");
  // Far off times, as the year 9999 for "never", are more than a Duration can hold.
  keys.lifetime = std::chrono::seconds(
      std::clamp<int64_t>(*expires - now_unix_s, 0, kLongestKeyLifetime.count()));
  return keys;
}

Result<S3Keys> BringS3Credentials(const S3Options& options, const SecretEnvironment& environment,
                                  const LocalFiles& local, Duration limit, const Cancel& cancel) {
  if (options.profile.empty()) {
    const std::string access = environment.Get("AWS_ACCESS_KEY_ID");
    const std::string secret = environment.Get("AWS_SECRET_ACCESS_KEY");
    if (!access.empty() && !secret.empty()) {
      return S3Keys{access, secret, environment.Get("AWS_SESSION_TOKEN"), std::nullopt};
    }
  }
  const std::pair<std::string, std::string> files[] = {
      {options.credentials_file, ProfileName(options)},
      {options.config_file, ConfigSection(options)},
  };
  std::string searched;
  for (const auto& [path, section] : files) {
    ASSIGN_OR_RETURN(std::optional<S3Keys> keys, FromFile(path, section, local, limit, cancel));
    if (keys) return std::move(*keys);
    if (!path.empty()) searched += ", [" + section + "] of " + path;
  }
  return Status(ENOENT, "no S3 credentials in " + (options.profile.empty()
                                                       ? "the fetcher's environment" + searched
                                                   : searched.empty() ? "any file"
                                                                      : searched.substr(2)));
}

std::string S3Region(const S3Options& options, const LocalFiles& local) {
  if (!options.region.empty()) return options.region;
  if (!options.config_file.empty()) {
    const auto text = local.ReadSecret(options.config_file, "AWS config file");
    const std::string region =
        text.ok() ? ParseAwsProfile(*text, ConfigSection(options))["region"] : "";
    if (!region.empty()) return region;
  }
  return "us-east-1";
}

}  // namespace fetcher
