// What went wrong with a request over HTTP, in words that name the cause and the cure.
//
// Errors   Failure: refused where the first try shows that another one would end like it, else
//          worth a retry.  Its cause stands behind `url`, which must be fit to be shown, as must
//          be the proxy.
// Threads  thread-safe: no state.
// See      docs/protocol.md "What the fetcher does with an origin's answer"

#ifndef FETCHER_HTTP_HTTP_TROUBLE_H_
#define FETCHER_HTTP_HTTP_TROUBLE_H_

#include <curl/curl.h>

#include <string>

#include "fetcher/http/http_answer.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

// What a libcurl error means.  `text` is the handle's error buffer.
Failure JudgeCurl(CURL* easy, CURLcode code, const char* text, const std::string& url);

// What can be done about a connection that was not made in time, behind "; ".
std::string CureOfTimeout(CURL* easy);

// Whether it means that the peer refuses the client certificate, or that it can't be sent.
bool IsCertificateRefusal(CURLcode code, const char* text);

// What can be done about an answer that is no part of an object, behind "; "; "" for nothing.
// `has_query`: the request had one, which may be a signature.
std::string CureOf(const HttpAnswer& answer, const std::string& url, bool has_query);

// What a request went through, " (through the proxy URL)"; "" for `proxy` "".  Without user and
// password.
std::string ThroughProxy(const std::string& proxy);

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_TROUBLE_H_
