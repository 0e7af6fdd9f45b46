// CallHttp: one HTTP request of its own, for things that are not an object: a token, a challenge.
//
// Model    GET, or POST of a form; an answer of any status is an answer.  Redirects are not
//          followed: they would take credentials along.
// Errors   the errno of libcurl's failure, in a sentence with the URL but not its query; ECANCELED;
//          EMSGSIZE a body over kMaxBody.
// Threads  blocks until the answer, the limit or the Cancel: for BlockingCalls.

#ifndef FETCHER_HTTP_HTTP_CALL_H_
#define FETCHER_HTTP_HTTP_CALL_H_

#include <string>

#include "cachecore/base/status.h"
#include "fetcher/http/http_answer.h"
#include "fetcher/http/http_easy.h"
#include "fetcher/http/http_engine.h"
#include "fetcher/source/local_files.h"
#include "fetcher/transfer/blocking_calls.h"

namespace fetcher {

struct HttpCall {
  std::string url;
  std::string form;  // "a=b&c=d", encoded; "": GET.
  std::string user;  // Basic authentication, if there is a user or a password.
  std::string password;
  HttpRoute route;
  std::string client_cert;  // PEM text.
  std::string client_key;
  const LocalFiles* local = &LocalFiles::Plain();  // Where ca_file is.
};

struct HttpReply {
  HttpAnswer answer;
  std::string body;
};

// `limit` is for all of it, connecting included.
cachecore::Result<HttpReply> CallHttp(const HttpCall& call, Duration limit, const Cancel& cancel);

// As a value in a query or form.
std::string UrlEncode(const std::string& text);

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_CALL_H_
