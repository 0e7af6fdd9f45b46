// FileBroker: root's half of a fetcher that runs as another user: it opens what sources name.
//
// Model    StartBroker forks it before the fetcher gives root up.  A request is one packet on a
//          socket pair that only the fetcher has, and carries the socket for its answer; a child of
//          the broker opens the file and answers there with an errno, a sentence and, for success,
//          the descriptor.  So a file on a server that does not answer delays its request only,
//          and only the fetcher can ask. What it may ask for: RegisteredFiles.
// Errors   AskBroker: what the broker said; EAGAIN no answer within LocalFiles::kPatience, or too
//          many requests; ECONNRESET the broker has ended.
// Threads  StartBroker, BecomeUser: while there is one thread.  AskBroker: any.
// Cost     a fork of a small process per request.
// Crash    the broker ends when the fetcher's end of the socket pair is closed; a fetcher whose
//          broker has died must end, so that both are started again.

#ifndef FETCHER_SOURCE_FILE_BROKER_H_
#define FETCHER_SOURCE_FILE_BROKER_H_

#include <sys/types.h>

#include <string>

#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "fetcher/source/registered_files.h"

namespace fetcher {

struct BrokerRequest {
  enum class Kind : char { kSource = 'S', kObject = 'O', kFile = 'F', kDevice = 'D', kLog = 'L' };

  Kind kind;
  std::string volume;  // Of kSource and kObject.
  std::string name;    // An object's URL, or a path.
};

// Forks the broker; the fetcher's end of its socket.  `log`: the file that it opens for kLog.
cachecore::Result<cachecore::UniqueFd> StartBroker(const RegisteredFiles& files,
                                                   const std::string& log = "");
cachecore::Result<cachecore::UniqueFd> AskBroker(const cachecore::UniqueFd& broker,
                                                 const BrokerRequest& request);

struct UserIds {
  std::string name;
  std::string home;
  uid_t uid = 0;
  gid_t gid = 0;
};
// A name or a number; EINVAL when there is no such user.
cachecore::Result<UserIds> FindUser(const std::string& text);
// Gives up root, groups and capabilities for good.
cachecore::Status BecomeUser(const UserIds& user);

}  // namespace fetcher

#endif  // FETCHER_SOURCE_FILE_BROKER_H_
