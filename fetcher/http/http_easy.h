// The settings of a libcurl easy handle before a transfer, and its results after it.
//
// Threads  those of the handle.

#ifndef FETCHER_HTTP_HTTP_EASY_H_
#define FETCHER_HTTP_HTTP_EASY_H_

#include <curl/curl.h>

#include <string>

#include "cachecore/url/proxy_settings.h"
#include "fetcher/http/http_answer.h"
#include "fetcher/http/http_engine.h"

namespace fetcher {

class LocalFiles;

// How servers are reached: which certificates are trusted, and through which proxy.
struct HttpRoute {
  std::string ca_file;       // "": the system's.
  bool adds_ca = false;      // ca_file is trusted beside the system's, not in their place.
  bool verifies_tls = true;  // False: any certificate is accepted.
  cachecore::ProxySettings proxy = cachecore::ProxySettings::FromEnvironment();
};
// Of a request to `url`, redirects' too.
void SetRoute(CURL* easy, const HttpRoute& route, const std::string& url, const LocalFiles& local);

// What all transfers have in common; redirects are not followed.
void SetCommonOptions(CURL* easy, Duration connect_timeout);

// Whose certificates it trusts: those of `ca_file`, or the system's for "".
void SetAuthority(CURL* easy, const std::string& ca_file, const LocalFiles& local);

// Gives it a certificate or key as text, which it copies.
void SetBlob(CURL* easy, CURLoption option, const std::string& text);

// The header fields that matter.
HttpAnswer AnswerOf(CURL* easy);

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_EASY_H_
