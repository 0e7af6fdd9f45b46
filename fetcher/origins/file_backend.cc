#include "fetcher/origins/file_backend.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/parse_text.h"
#include "cachecore/base/unique_fd.h"
#include "cachecore/url/url.h"
#include "fetcher/source/source_config.h"
#include "fetcher/transfer/data_file.h"

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;
using Kind = Failure::Kind;

struct OpenFile {
  UniqueFd fd;
  ObjectVersion version;
};

Failure FailureOf(Kind kind, int error, const std::string& url) {
  return {kind, error, url + ": " + std::strerror(error), Duration::zero()};
}

// Says which version of `url` is open; a failure if it is no regular file.
std::variant<ObjectVersion, Failure> VersionOf(const UniqueFd& fd, const std::string& url) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return FailureOf(Kind::kRetry, errno, url);
  if (!S_ISREG(info.st_mode)) {
    return Failure{Kind::kRefused, S_ISDIR(info.st_mode) ? EISDIR : EINVAL,
                   url + ": not a regular file", Duration::zero()};
  }
  const std::string stat =
      std::to_string(info.st_ino) + ":" + std::to_string(info.st_mtim.tv_sec) + "." +
      std::to_string(info.st_mtim.tv_nsec) + ":" + std::to_string(info.st_size) + ":" +
      std::to_string(info.st_ctim.tv_sec) + "." + std::to_string(info.st_ctim.tv_nsec);
  ObjectVersion version{static_cast<uint64_t>(info.st_size), {"stat", stat}};
  if (info.st_mtim.tv_sec >= 0) {
    version.modified_s = static_cast<uint64_t>(info.st_mtim.tv_sec);
    version.modified_ns = static_cast<uint32_t>(info.st_mtim.tv_nsec);
  }
  return version;
}

Kind KindOf(int error) {
  switch (error) {
    case EMFILE:
    case ENFILE:
    case EINTR:
    case EAGAIN:
    case ECONNRESET:  // The broker's end is ours soon.
      return Kind::kRetry;
    case ESTALE:
      return Kind::kChanged;
    default:
      return Kind::kRefused;
  }
}

// Opens the file that `key` names.
std::variant<OpenFile, Failure> OpenObject(const FileBackend& backend, const std::string& key) {
  const std::string url = backend.Describe(key);
  auto opened = backend.Open(key);
  if (!opened.ok()) {
    const cachecore::Status& status = opened.status();
    return Failure{KindOf(status.error()), status.error(), status.message(), Duration::zero()};
  }
  OpenFile file;
  file.fd = std::move(opened).value();
  auto version = VersionOf(file.fd, url);
  if (auto* failure = std::get_if<Failure>(&version)) return std::move(*failure);
  file.version = std::move(std::get<ObjectVersion>(version));
  return file;
}

Failure Changed(const std::string& url, const ObjectVersion& was, const ObjectVersion& is) {
  return {Kind::kChanged, ESTALE,
          url + ": changed since it was mounted (inode:mtime:size:ctime was " + was.pin.value +
              ", is " + is.pin.value + ")",
          Duration::zero()};
}

}  // namespace

class FileTransfer : public Transfer {
 public:
  FileTransfer(FileEngine* engine, const FileBackend& backend, std::string key)
      : engine_(engine), backend_(backend), key_(std::move(key)), url_(backend.Describe(key_)) {
    place_ = engine_->transfers_.insert(engine_->transfers_.end(), this);
  }
  ~FileTransfer() override {
    if (!ended_) engine_->transfers_.erase(place_);
  }

  // Does one piece.  Nothing of *this may be touched after End has been called.
  virtual void Step() = 0;

 protected:
  // Leaves the engine; the caller then calls back, which may destroy *this.
  void Leave() {
    ended_ = true;
    engine_->transfers_.erase(place_);
  }
  char* buffer() {
    if (!engine_->buffer_) engine_->buffer_ = std::make_unique<char[]>(FileEngine::kPieceSize);
    return engine_->buffer_.get();
  }
  std::variant<OpenFile, Failure> Open() const { return OpenObject(backend_, key_); }
  const std::string& url() const { return url_; }

 private:
  FileEngine* const engine_;
  const FileBackend& backend_;
  const std::string key_;
  const std::string url_;
  std::list<FileTransfer*>::iterator place_;
  bool ended_ = false;
};

FileEngine::FileEngine() = default;
FileEngine::~FileEngine() { CHECK(transfers_.empty()); }

void FileEngine::RunOnce() {
  if (transfers_.empty()) return;
  FileTransfer* next = transfers_.front();
  transfers_.splice(transfers_.end(), transfers_, transfers_.begin());
  next->Step();
}

namespace {

class FileProbe : public FileTransfer {
 public:
  FileProbe(FileEngine* engine, const FileBackend& backend, std::string key, ProbeDone done)
      : FileTransfer(engine, backend, std::move(key)), done_(std::move(done)) {}

  void Step() override {
    auto opened = Open();
    const ProbeDone done = std::move(done_);
    Leave();
    if (auto* failure = std::get_if<Failure>(&opened)) {
      done(std::move(*failure));
    } else {
      done(std::get<OpenFile>(opened).version);
    }
  }

 private:
  ProbeDone done_;
};

class FileFetch : public FileTransfer {
 public:
  FileFetch(FileEngine* engine, const FileBackend& backend, FetchRequest request, FetchSink* sink)
      : FileTransfer(engine, backend, request.key),
        request_(std::move(request)),
        position_(request_.range.begin),
        sink_(sink) {}

  void Step() override {
    if (!file_.valid()) {
      auto opened = Open();
      if (auto* failure = std::get_if<Failure>(&opened)) return End(std::move(*failure));
      const ObjectVersion& now = std::get<OpenFile>(opened).version;
      if (OtherPin(now) || now.size_bytes != request_.version.size_bytes) {
        return End(Changed(url(), request_.version, now));
      }
      file_ = std::move(std::get<OpenFile>(opened).fd);
    }
    const uint64_t length = std::min(FileEngine::kPieceSize, request_.range.end - position_);
    const ByteRange piece = ByteRange::At(position_, length);
    if (auto failure = request_.data_fd < 0 ? ReadPiece(piece) : CopyPiece(piece))
      return End(std::move(failure));
    // A writer may have come between the check and the copy: what was copied counts only if not.
    auto again = VersionOf(file_, url());
    if (auto* failure = std::get_if<Failure>(&again)) return End(std::move(*failure));
    const auto& now = std::get<ObjectVersion>(again);
    if (OtherPin(now)) return End(Changed(url(), request_.version, now));
    position_ = piece.end;
    if (request_.data_fd < 0) {
      if (auto failure = sink_->OnBytes(piece.begin, {buffer(), piece.size()})) {
        return End(std::move(failure));
      }
      if (position_ == request_.range.end) End(std::nullopt);
      return;
    }
    cachecore::FaultPoint(cachecore::Fault::kBytesStored);
    sink_->OnStored(piece);
    if (position_ == request_.range.end) End(std::nullopt);
  }

 private:
  void End(std::optional<Failure> failure) {
    FetchSink* sink = sink_;
    Leave();
    sink->OnEnd(std::move(failure));
  }

  // A request without a pin takes any version: its bytes authenticate themselves.
  bool OtherPin(const ObjectVersion& now) const {
    const Pin& pin = request_.version.pin;
    if (pin.kind.empty() || now.pin == pin) return false;
    // An earlier version pinned no time of change.
    const bool is_old = std::count(pin.value.begin(), pin.value.end(), ':') == 2;
    return !is_old || now.pin.kind != pin.kind || !now.pin.value.starts_with(pin.value + ":");
  }

  std::optional<Failure> ReadPiece(ByteRange piece) {
    size_t done = 0;
    while (done < piece.size()) {
      const ssize_t got = pread(file_.get(), buffer() + done, piece.size() - done,
                                static_cast<off64_t>(piece.begin + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FailureOf(Kind::kRetry, errno, url());
      if (got == 0) {
        return Failure{Kind::kRetry, EIO, url() + ": ended before its size", Duration::zero()};
      }
      done += static_cast<size_t>(got);
    }
    return std::nullopt;
  }

  std::optional<Failure> CopyPiece(ByteRange piece) {
    while (!piece.empty()) {
      auto from = static_cast<off64_t>(piece.begin);
      auto to = from;
      ssize_t copied = -1;
      if (in_kernel_) {
        copied = copy_file_range(file_.get(), &from, request_.data_fd, &to, piece.size(), 0);
        if (copied <= 0 && !(copied < 0 && errno == EINTR)) {
          in_kernel_ = false;  // Other file systems, old kernels; read and write say what is wrong.
          continue;
        }
      } else {
        copied = pread(file_.get(), buffer(), piece.size(), from);
        if (copied < 0 && errno != EINTR) return FailureOf(Kind::kRetry, errno, url());
        if (copied == 0) {
          return Failure{Kind::kRetry, EIO, url() + ": ended before its size", Duration::zero()};
        }
        if (copied > 0)
          copied = pwrite(request_.data_fd, buffer(), static_cast<size_t>(copied), to);
        if (copied < 0 && errno != EINTR) {
          return DataFileFailure(request_.data_fd, errno);
        }
      }
      if (copied > 0) piece.begin += static_cast<uint64_t>(copied);
    }
    return std::nullopt;
  }

  const FetchRequest request_;
  uint64_t position_;
  FetchSink* const sink_;
  UniqueFd file_;
  bool in_kernel_ = true;
};

}  // namespace

Result<UniqueFd> FileBackend::Open(const std::string& key) const {
  const std::string url = Describe(key);
  auto path = cachecore::PercentDecode(cachecore::AfterScheme(url_));
  auto name = cachecore::PercentDecode(key);
  if (!path.ok() || !name.ok()) return Status(EINVAL, url + ": not a file's name");
  if (files_.empty()) {  // A source that was not written by `holdfast mount`, or long ago.
    Result<UniqueFd> file = cachecore::OpenRegularBeneath(*path, *name);
    if (!file.ok()) return std::move(file).status().WithContext(url);
    return file;
  }
  for (const LocalFile& file : files_) {
    if (file.url != url) continue;
    Result<UniqueFd> opened = opener_->OpenObject(volume_, file);
    if (!opened.ok()) return std::move(opened).status().WithContext(url);
    return opened;
  }
  return Status(ENOENT, url + ": not what was mounted");
}

std::unique_ptr<Transfer> FileBackend::Probe(const std::string& key, bool, ProbeDone done) {
  return std::make_unique<FileProbe>(engine_, *this, key, std::move(done));
}

std::unique_ptr<Transfer> FileBackend::Fetch(FetchRequest request, FetchSink* sink) {
  return std::make_unique<FileFetch>(engine_, *this, std::move(request), sink);
}

}  // namespace fetcher
