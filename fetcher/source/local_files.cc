#include "fetcher/source/local_files.h"

#include <fcntl.h>
#include <glog/logging.h>

#include <cerrno>

#include "cachecore/environment/secret_file.h"
#include "fetcher/source/file_broker.h"

namespace fetcher {

using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

// Most sentences begin with the path.
Status Named(const std::string& what, const Status& status) {
  return Status(status.error(), what + " " + status.message());
}

}  // namespace

const LocalFiles& LocalFiles::Plain() {
  static const LocalFiles plain;
  return plain;
}

Result<SourceConfig> LocalFiles::ReadSource(const std::string& volume) const {
  if (!registered_) return Status(ENOENT, volume + ": there are no sources");
  RETURN_IF_ERROR(CheckVolumeKey(volume));
  UniqueFd file;
  if (broker_.valid()) {
    ASSIGN_OR_RETURN(file, AskBroker(broker_, {BrokerRequest::Kind::kSource, volume, ""}));
  } else {
    ASSIGN_OR_RETURN(file, registered_->OpenSource(volume));
  }
  return ReadSourceConfig(file, registered_->SourcePath(volume));
}

Result<UniqueFd> LocalFiles::OpenObject(const std::string& volume, const LocalFile& file) const {
  Result<UniqueFd> opened = cachecore::OpenPinnedFile(file.pin);
  if (opened.status().error() != EACCES || !broker_.valid()) return opened;
  return AskBroker(broker_, {BrokerRequest::Kind::kObject, volume, file.url});
}

Result<UniqueFd> LocalFiles::OpenFile(const std::string& path) const {
  if (broker_.valid()) return AskBroker(broker_, {BrokerRequest::Kind::kFile, "", path});
  if (registered_) return registered_->OpenFile(path);
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return Status::FromErrno(errno, path);
  return file;
}

Result<std::string> LocalFiles::ReadSecret(const std::string& path, const std::string& what) const {
  if (!registered_) return cachecore::ReadSecretFile(path, what);
  Result<UniqueFd> file = OpenFile(path);
  if (!file.ok()) return Named(what, file.status());
  return cachecore::ReadOpenSecret(*file, path, what);
}

Result<std::string> LocalFiles::ReadPublic(const std::string& path, const std::string& what) const {
  Result<UniqueFd> file = OpenFile(path);
  if (!file.ok()) return Named(what, file.status());
  return cachecore::ReadOpenFile(*file, what + " " + path);
}

std::string LocalFiles::Certificates(const std::string& path) const {
  const cachecore::Duration now = cachecore::Clock::Monotonic().Now();
  {
    cachecore::MutexLock lock(&mu_);
    const auto known = certificates_.find(path);
    if (known != certificates_.end() && now - known->second.read_at < kCertificatesAge) {
      return known->second.text;
    }
  }
  Result<std::string> text = ReadPublic(path, "CA file");
  if (!text.ok()) {
    LOG_EVERY_N(WARNING, 100) << text.status().message() << " (" << google::COUNTER << " times)";
  }
  cachecore::MutexLock lock(&mu_);
  Text& known = certificates_[path];
  if (text.ok()) known.text = std::move(text).value();
  known.read_at = now;
  return known.text;
}

Result<std::string> LocalFiles::DevicePath(const std::string& device, UniqueFd* keep) const {
  if (!broker_.valid()) return device;
  ASSIGN_OR_RETURN(*keep, AskBroker(broker_, {BrokerRequest::Kind::kDevice, "", ""}));
  return "/proc/self/fd/" + std::to_string(keep->get());
}

Result<UniqueFd> LocalFiles::OpenLog(const std::string& path) const {
  if (!broker_.valid()) return cachecore::OpenLogFile(path);
  return AskBroker(broker_, {BrokerRequest::Kind::kLog, "", path});
}

}  // namespace fetcher
