#include "cli/fetcher_user.h"

#include <pwd.h>

#include <cerrno>
#include <charconv>

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr uid_t kNobody = 65534;  // Where nobody has written it down.

}  // namespace

Result<FetcherUser> FindFetcherUser(const std::string& text) {
  if (text.empty()) {
    for (const char* name : {"holdfast-fetcher", "nobody"}) {
      if (const passwd* user = getpwnam(name)) return FetcherUser{name, user->pw_uid};
    }
    return FetcherUser{std::to_string(kNobody), kNobody};
  }
  if (const passwd* user = getpwnam(text.c_str())) return FetcherUser{text, user->pw_uid};
  uid_t uid = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, uid);
  if (error == std::errc() && stopped == end) return FetcherUser{text, uid};
  return Status(EINVAL, "--fetcher-user: there is no user \"" + text + "\"");
}

}  // namespace cli
