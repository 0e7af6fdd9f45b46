// S3Credentials: the keys that requests to S3 are signed with, and where they come from.
//
// Model    the first of: the environment (unless a profile was asked for), the profile in the
//          shared credentials file, the profile in the config file; in a file the keys themselves,
//          else what its credential_process prints, which may take `limit`.
// Errors   ENOENT: none of them has any, naming where was looked.  Else what is wrong with the one
//          that was tried; never what is in it.
// Threads  BringS3Credentials: any; blocks on files and on credential_process.

#ifndef FETCHER_AUTH_S3_CREDENTIALS_H_
#define FETCHER_AUTH_S3_CREDENTIALS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cachecore/base/clock.h"
#include "cachecore/base/status.h"
#include "cachecore/environment/secret_environment.h"
#include "fetcher/source/origin_options.h"
#include "fetcher/transfer/blocking_calls.h"

namespace fetcher {

class LocalFiles;

struct S3Keys {
  std::string access_key;
  std::string secret_key;
  std::string session_token;                    // "" for keys that do not expire.
  std::optional<cachecore::Duration> lifetime;  // From now on.
};

cachecore::Result<S3Keys> BringS3Credentials(const S3Options& options,
                                             const cachecore::SecretEnvironment& environment,
                                             const LocalFiles& local, cachecore::Duration limit,
                                             const Cancel& cancel);
// What credential_process prints; `now_unix_s` is compared with its Expiration.
cachecore::Result<S3Keys> ParseProcessCredentials(std::string_view json, int64_t now_unix_s);

// The region of the options, else of the profile in the config file, else us-east-1.
std::string S3Region(const S3Options& options, const LocalFiles& local);

}  // namespace fetcher

#endif  // FETCHER_AUTH_S3_CREDENTIALS_H_
