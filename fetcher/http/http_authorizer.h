// HttpAuthorizer: the credentials of requests to one HTTP origin.
//
// Model    Authorize gives what a request carries, or NotYet while that is being brought.  The
//          authorizer is told when an answer refuses what a request carried; the request is then
//          made once more with what Authorize gives next.  What it gives goes to the origin's own
//          scheme, host and port and, whatever a redirect says, to no other.
// Errors   Authorize: Failure, whose cause has no URL in it yet: nothing can be brought now, and
//          why.
// Threads  the event loop's.  Nothing here may block it: renewing_authorizer.h brings
//          credentials on other threads.
// See      docs/design.md "Credentials".

#ifndef FETCHER_HTTP_HTTP_AUTHORIZER_H_
#define FETCHER_HTTP_HTTP_AUTHORIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "fetcher/http/http_answer.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

struct HttpCredentials {
  std::vector<std::string> headers;  // Whole lines: "Name: value".
  std::string sigv4;                 // "aws:amz:REGION:SERVICE": sign with user and password.
  std::string user;                  // Of basic authentication unless sigv4 is set.
  std::string password;
  std::string client_cert;  // PEM text, not a path: other text means other connections.
  std::string client_key;
};

class HttpAuthorizer {
 public:
  struct Granted {
    std::shared_ptr<const HttpCredentials> credentials;
    uint64_t serial = 0;  // Tells these credentials from those before and after.
  };
  struct NotYet {};  // Ask again when HttpEngine::Wake was called.
  using Authorization = std::variant<Granted, NotYet, Failure>;

  virtual ~HttpAuthorizer() = default;

  virtual Authorization Authorize() = 0;
  // Whether this answer, which is neither success nor redirect, refuses what the request carried.
  virtual bool IsRefusal(const HttpAnswer& answer) const {
    return answer.status == 401 || answer.status == 403;
  }
  // An answer that was no refusal has come to a request that carried credentials `serial`.
  virtual void OnAccepted(uint64_t serial) = 0;
  // A refusal has come, which means `failure`.
  virtual void OnRefused(uint64_t serial, const HttpAnswer& answer, const Failure& failure) = 0;
  // `failure`, which the answer was taken for, in the words of this kind of origin.
  virtual Failure Explain(const HttpAnswer&, Failure failure) const { return failure; }
};

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_AUTHORIZER_H_
