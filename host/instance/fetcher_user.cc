#include "host/instance/fetcher_user.h"

#include <pwd.h>

#include <cerrno>
#include <charconv>

#include "host/instance/privileges.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr uid_t kNobody = 65534;  // Where the user database has no entry.

Result<FetcherUser> FindAnywhere(const std::string& text) {
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

}  // namespace

Result<FetcherUser> FindFetcherUser(const std::string& text) {
  ASSIGN_OR_RETURN(FetcherUser user, FindAnywhere(text));
  if (IsMappedUid(user.uid)) return user;
  return Status(EPERM, "the fetcher cannot run as " + user.name +
                           ": this user namespace has no such user, since its root is not the "
                           "machine's; run holdfast as root outside of it, or, for --as=file "
                           "only, with --fetcher-user=root");
}

}  // namespace host
