// The user that the fetcher of an instance runs as.
//
// Errors   EINVAL: there is no such user; EPERM: not in our user namespace.
// Threads  getpwnam(3)'s: while no other thread looks users up.

#ifndef HOST_INSTANCE_FETCHER_USER_H_
#define HOST_INSTANCE_FETCHER_USER_H_

#include <sys/types.h>

#include <string>

#include "cachecore/base/status.h"

namespace host {

struct FetcherUser {
  std::string name;  // Or number, as holdfast-fetcherd's --user takes it.
  uid_t uid = 0;
};

// By name or number; "": holdfast-fetcher where there is such a user, else nobody.
cachecore::Result<FetcherUser> FindFetcherUser(const std::string& text);

}  // namespace host

#endif  // HOST_INSTANCE_FETCHER_USER_H_
