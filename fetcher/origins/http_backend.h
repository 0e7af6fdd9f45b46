// HttpBackend: objects below a URL.
//
// Model    ranges by GET with Range and If-Range over kept connections, HTTP/2 where TLS offers it.
//          An answer is held against the request (status, Content-Range, validator) before its
//          first byte is written; then bytes are gathered to HttpEngine::kGather, or for
//          gather_time, and written.  A body that ends early keeps what came.
// Errors   see docs/protocol.md "What the fetcher does with an origin's answer".
// Threads  the event loop's.  Writing to a data file may block on its disk.
// Cost     one copy socket to buffer, one buffer to page cache.

#ifndef FETCHER_ORIGINS_HTTP_BACKEND_H_
#define FETCHER_ORIGINS_HTTP_BACKEND_H_

#include <memory>
#include <string>

#include "fetcher/http/http_engine.h"
#include "fetcher/http/http_transfer.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

class HttpBackend : public Backend {
 public:
  // `engine` outlives this.
  HttpBackend(HttpSite site, HttpEngine* engine);

  std::unique_ptr<Transfer> Probe(const std::string& key, bool afresh, ProbeDone done) override;
  std::unique_ptr<Transfer> Fetch(FetchRequest request, FetchSink* sink) override;
  std::string Describe(const std::string& key) const override;

 private:
  const HttpSite site_;
  HttpEngine* const engine_;
};

}  // namespace fetcher

#endif  // FETCHER_ORIGINS_HTTP_BACKEND_H_
