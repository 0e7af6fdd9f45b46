#include "fetcher/origins/http_backend.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "fetcher/http/http_answer.h"
#include "fetcher/http/http_range.h"
#include "fetcher/transfer/data_file.h"

namespace fetcher {
namespace {

using Kind = Failure::Kind;

// Asks for the first byte; where that is refused or answered oddly, for the first block, as
// reads do; and where no answer tells the size, for the headers alone.
class HttpProbe : public HttpTransfer {
 public:
  HttpProbe(HttpEngine* engine, const HttpSite& site, const std::string& key, bool afresh,
            ProbeDone done)
      : HttpTransfer(engine, site, key, kFirstByte, Pin(), afresh),
        digest_(site.key_is_digest ? key : ""),
        done_(std::move(done)) {}

  bool OnBody(const char*, size_t size) override { return Drain(size); }

  void Finish(std::optional<Failure> failure) override {
    ProbeResult result = failure ? *failure : Judge();
    if (!failure && MayBeAskedAgain(result)) return AskAgain();
    if (auto* judged = std::get_if<Failure>(&result); judged && !failure) {
      *judged = Explain(std::move(*judged));
    }
    if (auto* version = std::get_if<ObjectVersion>(&result); version && !digest_.empty()) {
      version->pin = DigestPin(digest_);
    }
    const ProbeDone done = std::move(done_);
    done(std::move(result));
  }

 private:
  static constexpr ByteRange kFirstByte{0, 1};
  static constexpr ByteRange kFirstBlock{0, 4096};

  ProbeResult Judge() const {
    HttpAnswer now = answer();
    if (!part_) return JudgeProbe(now, shown_url(), asked_);
    // The size that the part did not tell.
    if (now.status == 200 && now.content_length && now.content_encoding.empty()) {
      const Pin pin = PinOf(*part_);
      if (PinOf(now) == pin) {
        ProbeResult told = JudgeProbe(*part_, shown_url(), asked_);
        ObjectVersion version{*now.content_length, pin};
        if (const auto* part = std::get_if<ObjectVersion>(&told)) version = *part;
        return version;
      }
    }
    return JudgeProbe(*part_, shown_url(), asked_);
  }

  // A part of the object, by an origin that does not say how large the whole is.
  bool LacksSize(const HttpAnswer& now) const {
    const auto range = ParseContentRange(now.content_range);
    return now.status == 206 && now.content_encoding.empty() && range.ok() && range->range &&
           !range->total && range->range->begin == 0 && range->range->end <= asked_.end;
  }

  bool MayBeAskedAgain(const ProbeResult& result) const {
    if (part_) return false;
    const HttpAnswer now = answer();
    if (LacksSize(now)) return true;
    if (const auto* version = std::get_if<ObjectVersion>(&result)) {
      return version->size_bytes == 0 && asked_ == kFirstByte;
    }
    return asked_ == kFirstByte && std::get<Failure>(result).kind == Kind::kRefused &&
           now.status != 401 && now.status != 403 && now.status != 404 && now.status != 407 &&
           now.status != 410;
  }

  void AskAgain() {
    const HttpAnswer now = answer();
    if (LacksSize(now)) {
      part_ = now;
      return AskForHeaders();
    }
    asked_ = kFirstBlock;
    AskFor(asked_);
  }

  const std::string digest_;
  ByteRange asked_ = kFirstByte;
  std::optional<HttpAnswer> part_;  // Asking for the headers: what came before.
  ProbeDone done_;
};

class HttpFetch : public HttpTransfer {
 public:
  HttpFetch(HttpEngine* engine, const HttpSite& site, FetchRequest request, FetchSink* sink)
      : HttpTransfer(engine, site, request.key, request.range, request.version.pin, request.afresh),
        request_(std::move(request)),
        stored_(request_.range.begin),
        answered_end_(request_.range.end),
        sink_(sink) {}
  ~HttpFetch() override { ReturnBuffer(std::move(buffer_)); }

  bool OnBody(const char* data, size_t size) override;
  void Finish(std::optional<Failure> failure) override;
  bool HasGathered(Duration by) const override { return gathered_ > 0 && gathered_since_ <= by; }
  // Should it fail, failure_ ends the transfer at its next piece of body.
  void StoreGathered() override { Store(); }

 private:
  void Judge();
  // Gives what is gathered to the sink.
  bool HandOn();
  // Writes what is gathered and reports it.
  bool Store();

  const FetchRequest request_;
  uint64_t stored_;      // Everything before this is in the data file.
  size_t gathered_ = 0;  // Bytes in buffer_, which belong at stored_.
  Duration gathered_since_{0};
  uint64_t answered_end_;  // Where the answer ends, by its own word.
  std::unique_ptr<char[]> buffer_;
  FetchSink* const sink_;
  bool judged_ = false;
  bool oversized_ = false;
  std::optional<Failure> failure_;
};

bool HttpFetch::OnBody(const char* data, size_t size) {
  if (!judged_) Judge();
  if (failure_) return failure_->kind != Kind::kLocal && !oversized_ && Drain(size);
  while (size > 0) {
    const uint64_t position = stored_ + gathered_;
    const size_t part =
        std::min<uint64_t>({size, HttpEngine::kGather - gathered_, answered_end_ - position});
    if (part == 0) {
      oversized_ = true;
      failure_ =
          Failure{Kind::kRetry, EIO, shown_url() + ": sent more than it said", Duration::zero()};
      return false;
    }
    if (gathered_ == 0) gathered_since_ = cachecore::Clock::Monotonic().Now();
    std::memcpy(buffer_.get() + gathered_, data, part);
    gathered_ += part;
    data += part;
    size -= part;
    const bool full = gathered_ == HttpEngine::kGather || position + part == answered_end_;
    if (full && !Store()) return false;
  }
  return true;
}

void HttpFetch::Finish(std::optional<Failure> failure) {
  if (!judged_ && !failure) Judge();
  // Some take their own date for too young to be compared with, and send everything: then what the
  // answer says is compared.
  if (!failure && IsWholeOf(answer(), request_.version) && AskWithoutIfRange()) {
    judged_ = false;
    failure_.reset();
    return;
  }
  Store();
  // The object was served before: certificates, ports and redirects are put right again.
  if (failure && failure->kind == Kind::kRefused) failure->kind = Kind::kRetry;
  if (!failure_) failure_ = std::move(failure);
  // The object was served before: the same credentials may be accepted again.
  if (failure_ && refused()) failure_->kind = Kind::kRetry;
  // The next redirect may lead to another place, or have a new signature.
  if (failure_ && failure_->kind == Kind::kRefused && is_elsewhere()) failure_->kind = Kind::kRetry;
  if (!failure_ && stored_ < request_.range.end) {
    failure_ = Failure{Kind::kRetry, EIO,
                       shown_url() + ": body ended after " +
                           std::to_string(stored_ - request_.range.begin) + " of " +
                           std::to_string(request_.range.size()) + " bytes",
                       Duration::zero()};
  }
  sink_->OnEnd(std::move(failure_));
}

void HttpFetch::Judge() {
  judged_ = true;
  const HttpAnswer headers = answer();
  failure_ = JudgeFetch(headers, request_.range, request_.version, shown_url());
  if (failure_) {
    failure_ = Explain(std::move(*failure_));
    return;
  }
  answered_end_ = ParseContentRange(headers.content_range)->range->end;
  buffer_ = TakeBuffer();
}

bool HttpFetch::HandOn() {
  failure_ = sink_->OnBytes(stored_, {buffer_.get(), gathered_});
  stored_ += gathered_;
  gathered_ = 0;
  return !failure_;
}

bool HttpFetch::Store() {
  if (request_.data_fd < 0) return gathered_ == 0 || HandOn();
  size_t written = 0;
  while (written < gathered_) {
    const ssize_t done = pwrite(request_.data_fd, buffer_.get() + written, gathered_ - written,
                                static_cast<off_t>(stored_ + written));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      failure_ = DataFileFailure(request_.data_fd, done < 0 ? errno : ENOSPC);
      gathered_ = 0;
      return false;
    }
    written += static_cast<size_t>(done);
  }
  if (gathered_ == 0) return true;
  const ByteRange stored = ByteRange::At(stored_, gathered_);
  stored_ = stored.end;
  gathered_ = 0;
  cachecore::FaultPoint(cachecore::Fault::kBytesStored);
  sink_->OnStored(stored);
  return true;
}

}  // namespace

HttpBackend::HttpBackend(HttpSite site, HttpEngine* engine)
    : site_([&] {
        const HttpOptions& options = engine->options();
        site.patience = std::make_shared<HttpPatience>(HttpPatience{
            GrowingLimit(options.connect_timeout), GrowingLimit(options.first_byte_timeout)});
        return std::move(site);
      }()),
      engine_(engine) {}

std::unique_ptr<Transfer> HttpBackend::Probe(const std::string& key, bool afresh, ProbeDone done) {
  return std::make_unique<HttpProbe>(engine_, site_, key, afresh, std::move(done));
}

std::unique_ptr<Transfer> HttpBackend::Fetch(FetchRequest request, FetchSink* sink) {
  return std::make_unique<HttpFetch>(engine_, site_, std::move(request), sink);
}

std::string HttpBackend::Describe(const std::string& key) const { return site_.ShownUrl(key); }

}  // namespace fetcher
