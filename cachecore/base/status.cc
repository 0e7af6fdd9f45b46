#include "cachecore/base/status.h"

#include <glog/logging.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace cachecore {

Status::Status(int error, std::string message)
    : rep_(std::make_unique<Rep>(Rep{error, std::move(message)})) {
  CHECK_GT(error, 0);
}

Status Status::FromErrno(int error, const std::string& doing) {
  return Status(error, doing + ": " + std::strerror(error));
}

Status::Status(const Status& other)
    : rep_(other.rep_ ? std::make_unique<Rep>(*other.rep_) : nullptr) {}

Status& Status::operator=(const Status& other) {
  if (this != &other) rep_ = other.rep_ ? std::make_unique<Rep>(*other.rep_) : nullptr;
  return *this;
}

const std::string& Status::message() const {
  static const std::string kOk = "success";
  return rep_ ? rep_->message : kOk;
}

bool TakesNothing(int error) { return error == ENOSPC || error == EDQUOT || error == EROFS; }

void DieOfNoValue(const Status& status) {
  LOG(FATAL) << "a Result without a value: " << status.message();
  std::abort();
}

Status Status::WithContext(const std::string& context) && {
  if (rep_) rep_->message = context + ": " + rep_->message;
  return std::move(*this);
}

}  // namespace cachecore
