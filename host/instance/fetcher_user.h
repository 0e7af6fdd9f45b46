// The user that the fetcher of an instance runs as.
//
// Errors   EINVAL: there is no such user.
// Threads  getpwnam(3)'s: while nobody else looks users up.

#ifndef CLI_FETCHER_USER_H_
#define CLI_FETCHER_USER_H_

#include <sys/types.h>

#include <string>

#include "cachecore/status.h"

namespace cli {

struct FetcherUser {
  std::string name;  // Or number, as holdfast-fetcherd's --user takes it.
  uid_t uid = 0;
};

// By name or number; "": holdfast-fetcher where there is such a user, else nobody.
cachecore::Result<FetcherUser> FindFetcherUser(const std::string& text);

}  // namespace cli

#endif  // CLI_FETCHER_USER_H_
