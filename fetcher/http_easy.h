// What a libcurl easy handle is told before a transfer, and tells after it.
//
// Errors   Failure with the cause in words behind `url`, which must be fit to be shown.

#ifndef FETCHER_HTTP_EASY_H_
#define FETCHER_HTTP_EASY_H_

#include <curl/curl.h>

#include <string>

#include "fetcher/backend.h"
#include "fetcher/http_answer.h"
#include "fetcher/http_engine.h"

namespace fetcher {

class LocalFiles;

// What all our transfers have in common; redirects are not followed.
void SetCommonOptions(CURL* easy, Duration connect_timeout);

// Whose certificates it trusts: those of `ca_file`, or the system's for "".
void SetAuthority(CURL* easy, const std::string& ca_file, const LocalFiles& local);

// Gives it a certificate or key as text, which it copies.
void SetBlob(CURL* easy, CURLoption option, const std::string& text);

// The header fields that matter.
HttpAnswer AnswerOf(CURL* easy);

// What a libcurl error means.  `text` is the handle's error buffer.
Failure JudgeCurl(CURL* easy, CURLcode code, const char* text, const std::string& url);

// Whether it means that the peer refuses our certificate, or can't be shown it.
bool IsCertificateRefusal(CURLcode code, const char* text);

}  // namespace fetcher

#endif  // FETCHER_HTTP_EASY_H_
