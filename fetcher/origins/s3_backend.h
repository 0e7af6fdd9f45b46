// S3: objects of a bucket, by signed HTTP requests.
//
// Model    an HttpSite whose requests are signed with SigV4 (by libcurl) and whose errors are read
//          from S3's XML.  Keys are sent in the one encoding that the signature is made over.
// Errors   those of an HTTP origin; by S3's codes ENOENT for a key or bucket that is not there,
//          EACCES for what is not allowed.
// See      docs/sources.md "S3"

#ifndef FETCHER_ORIGINS_S3_BACKEND_H_
#define FETCHER_ORIGINS_S3_BACKEND_H_

#include <memory>
#include <string>

#include "cachecore/base/status.h"
#include "cachecore/environment/secret_environment.h"
#include "fetcher/auth/s3_credentials.h"
#include "fetcher/origins/http_backend.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class S3Backend : public Backend {
 public:
  // `url` is s3://BUCKET/[PREFIX/].  `engine` outlives this.
  S3Backend(const std::string& url, const HttpRoute& route, const S3Options& options,
            std::shared_ptr<const cachecore::SecretEnvironment> environment, HttpEngine* engine);

  std::unique_ptr<Transfer> Probe(const std::string& key, bool afresh, ProbeDone done) override;
  std::unique_ptr<Transfer> Fetch(FetchRequest request, FetchSink* sink) override;
  std::string Describe(const std::string& key) const override { return http_.Describe(key); }

 private:
  HttpBackend http_;
};

// Where the objects of s3://BUCKET/PREFIX/ are: "https://BUCKET.s3.REGION.amazonaws.com/PREFIX/".
std::string S3BaseUrl(const std::string& url, const S3Options& options);
// Every byte but unreserved ones and '/' as %XX, as the signature has it.
std::string S3Encode(const std::string& percent_encoded);
// <Code> of S3's error document; "" if there is none.
std::string S3ErrorCode(const std::string& xml);
// `failure`, made of an answer with that error document, told more exactly by S3's own code.
Failure ExplainS3Failure(const std::string& xml, Failure failure);

}  // namespace fetcher

#endif  // FETCHER_ORIGINS_S3_BACKEND_H_
