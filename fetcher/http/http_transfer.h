// HttpTransfer: one ranged GET of an object, with its credentials and its redirects.
//
// Model    asks the site's authorizer and waits until that grants something; then libcurl has it
//          until it ends.  Redirects are followed here, not by libcurl: the base URL's scheme, host
//          and port are where credentials and the client certificate go, and the only place.  After
//          a refusal from there the authorizer is told and the request made once more.  Bodies that
//          are not the object's end here; what may be the object's goes to OnBody.  The time limit
//          of each request is that of the site's HttpPatience.
// Threads  the event loop's.
// Owns     an easy handle of the engine.

#ifndef FETCHER_HTTP_HTTP_TRANSFER_H_
#define FETCHER_HTTP_HTTP_TRANSFER_H_

#include <curl/curl.h>

#include <memory>
#include <optional>
#include <string>

#include "fetcher/http/http_answer.h"
#include "fetcher/http/http_authorizer.h"
#include "fetcher/http/http_easy.h"
#include "fetcher/http/http_engine.h"
#include "fetcher/http/http_patience.h"
#include "fetcher/transfer/backend.h"

namespace fetcher {

// Where the objects of one origin are, and the credentials for it.
struct HttpSite {
  std::string base_url;  // Ends in '/'; may hold a user and password.
  std::string query;     // "" or "?...", put behind every URL.
  HttpRoute route;
  bool key_is_digest =
      false;  // The key itself tells one version from the next: nothing else is pinned.
  std::string shown_base_url;  // What is shown for base_url; "" for base_url without secrets.
  std::shared_ptr<HttpAuthorizer> authorizer;  // Null: the origin needs no credentials.
  // How keys are written in URLs here; null: as they are.
  std::string (*encode_key)(const std::string& key) = nullptr;
  std::shared_ptr<HttpPatience> patience = nullptr;  // HttpBackend sets it.

  std::string Url(const std::string& key) const;
  std::string ShownUrl(const std::string& key) const;
};

class HttpTransfer : public Transfer {
 public:
  ~HttpTransfer() override;
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  // For the engine.
  bool is_parked() const { return parked_; }
  bool has_refusal() const { return refusal_.has_value(); }
  // When it will have been waited for too long; nullopt while that can't be said.
  std::optional<Duration> Deadline() const;
  // Ends it if it has been waited for too long.  May destroy *this.
  void EndIfOverdue(Duration now);
  // REQUIRES: is_parked().  May destroy *this, as may OnDone.
  void Advance();
  void OnDone(CURLcode code);
  // Whether bytes are in memory that came by then.
  virtual bool HasGathered(Duration) const { return false; }
  // Writes what is in memory.
  virtual void StoreGathered() {}

 protected:
  // `site` outlives this.
  HttpTransfer(HttpEngine* engine, const HttpSite& site, const std::string& key, ByteRange range,
               const Pin& pin, bool afresh);

  // Takes a piece of a body that means to be the object's; false ends the transfer.
  virtual bool OnBody(const char* data, size_t size) = 0;
  // It is over: answer() came to its end, or until OnBody had enough; or failure says why not.  May
  // destroy *this.
  virtual void Finish(std::optional<Failure> failure) = 0;

  HttpAnswer answer() const;
  // `failure`, which answer() was taken for, in the words of the site, with what cures it.
  Failure Explain(Failure failure) const;
  // The authorizer's credentials were refused at the end.
  bool refused() const { return refused_; }
  // The answer is of another place than the site.
  bool is_elsewhere() const { return !is_home_; }
  // Makes the request again, of another range, or for the headers alone.  The answer that it has
  // must have come to its end.
  void AskFor(ByteRange range);
  void AskForHeaders();
  // Makes it again without If-Range.  False: it had none.
  bool AskWithoutIfRange();
  // Counts bytes of a body that is not used; false when they are too many.
  bool Drain(size_t size);
  std::unique_ptr<char[]> TakeBuffer() { return engine_->TakeBuffer(); }
  void ReturnBuffer(std::unique_ptr<char[]> buffer) { engine_->ReturnBuffer(std::move(buffer)); }
  const std::string& shown_url() const { return shown_url_; }

 private:
  static size_t WriteCallback(char* data, size_t, size_t size, void* self);
  bool TakeBody(const char* data, size_t size);

  // Gives the request to libcurl if the authorizer grants it.  Makes no callback.
  void Start();
  // The same from the beginning, at the site.
  void StartAnew();
  void SetUp();
  void SetCredentials();
  void SetHeaders();
  // Takes the request back from libcurl.
  void Stop();
  Failure Fail(Failure::Kind kind, int error, const std::string& what) const;
  // Goes on at the place that the answer names; false if it names none.
  bool Redirect();
  // Tells the authorizer how the answer took its credentials.  True: the request is under way
  // again.
  bool HandleRefusal();
  bool AskAgain(const HttpAnswer& answer, Failure failure);
  // What libcurl's error means; tells the site's patience.
  Failure JudgeError(CURLcode code);
  // Where the request went, if that is not what shown_url() says.
  std::string Way() const;
  int status() const;

  HttpEngine* const engine_;
  const HttpSite& site_;
  const std::string shown_url_;
  std::string range_;  // "" asks for the headers.
  std::string if_range_;
  const bool afresh_;
  CURL* const easy_;

  const std::string home_url_;
  std::string url_;      // Where the next request goes.
  std::string host_;     // Of that, for what is counted.
  bool is_home_ = true;  // That is at the site.
  int redirects_ = 0;
  bool running_ = false;  // libcurl has it.
  TransferWatch watch_;
  Duration connect_limit_{0};
  bool parked_ = false;  // It waits for the authorizer, or to report refusal_.
  bool asked_again_ = false;
  bool refused_ = false;
  std::optional<Failure> refusal_;   // To be reported at the next Advance.
  HttpAuthorizer::Granted granted_;  // What the request carries.
  curl_slist* headers_ = nullptr;
  char error_text_[CURL_ERROR_SIZE] = {};
  uint64_t drained_ = 0;
  std::string error_body_;
};

}  // namespace fetcher

#endif  // FETCHER_HTTP_HTTP_TRANSFER_H_
