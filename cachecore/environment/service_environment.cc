#include "cachecore/environment/service_environment.h"

#include <algorithm>
#include <iterator>

#include "cachecore/environment/secret_environment.h"

namespace cachecore {
namespace {

// With '=': a name.  Without: what a name begins with.
constexpr std::string_view kOfAll[] = {
    "PATH=",         "HOME=",         "USER=",         "LOGNAME=",      "LANG=",
    "LANGUAGE=",     "LC_",           "TZ=",           "TMPDIR=",       "HOLDFAST_",
    "ASAN_OPTIONS=", "LSAN_OPTIONS=", "TSAN_OPTIONS=", "UBSAN_OPTIONS="};
constexpr std::string_view kOfFetcher[] = {
    "http_proxy=",    "HTTP_PROXY=",     "https_proxy=",        "HTTPS_PROXY=",
    "all_proxy=",     "ALL_PROXY=",      "no_proxy=",           "NO_PROXY=",
    "SSL_CERT_FILE=", "SSL_CERT_DIR=",   "AWS_CONFIG_FILE=",    "AWS_SHARED_CREDENTIALS_FILE=",
    "AWS_PROFILE=",   "AWS_REGION=",     "AWS_DEFAULT_REGION=", "AWS_CA_BUNDLE=",
    "DOCKER_CONFIG=", "XDG_RUNTIME_DIR="};

bool IsListed(std::string_view variable, const std::string_view* begin,
              const std::string_view* end) {
  return std::any_of(begin, end,
                     [variable](std::string_view listed) { return variable.starts_with(listed); });
}

}  // namespace

bool ServiceMayHave(std::string_view variable, bool brings) {
  return IsListed(variable, std::begin(kOfAll), std::end(kOfAll)) ||
         (brings && IsListed(variable, std::begin(kOfFetcher), std::end(kOfFetcher)));
}

bool SupervisorMayHave(std::string_view variable) {
  return ServiceMayHave(variable, /*brings=*/true) ||
         SecretEnvironment::IsSecret(variable.substr(0, variable.find('=')));
}

}  // namespace cachecore
