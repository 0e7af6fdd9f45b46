// Status, Result<T>: how every fallible function in this tree reports what went wrong.
//
// Model    success, or one errno plus a sentence.  The errno is what a reader, a fetcher or an exit
//          code is finally given, so it is the only code there is; nothing maps codes to codes.
// Errors   expected failures are Status; a broken invariant is a glog CHECK; persisted state that
//          does not decode is Status with EBADMSG.  An error is dropped by IgnoreError alone.
// Threads  immutable value types.
// Cost     success is one null pointer.

#ifndef CACHECORE_BASE_STATUS_H_
#define CACHECORE_BASE_STATUS_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace cachecore {

class [[nodiscard]] Status {
 public:
  Status() = default;  // Success.
  // `error` is a positive errno.
  Status(int error, std::string message);
  // An errno with what was being done: "open /x: Permission denied".
  static Status FromErrno(int error, const std::string& doing);

  Status(const Status& other);
  Status& operator=(const Status& other);
  Status(Status&&) = default;
  Status& operator=(Status&&) = default;

  bool ok() const { return rep_ == nullptr; }
  int error() const { return rep_ ? rep_->error : 0; }
  const std::string& message() const;
  // Drops an error.  `why` tells the reader of the code what makes that right.
  void IgnoreError(const char* why) const { static_cast<void>(why); }
  // Returns the same error with "context: " put before its message.
  Status WithContext(const std::string& context) &&;

 private:
  struct Rep {
    int error;
    std::string message;
  };
  std::unique_ptr<Rep> rep_;
};

// Whether this is the error of a write to a disk that is full, or was made read-only, for now.
bool TakesNothing(int error);

// A Result without a value that was made from success, or is used as if it had one.
[[noreturn]] void DieOfNoValue(const Status& status);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  // REQUIRES: an error.
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (status_.ok()) DieOfNoValue(status_);
  }

  bool ok() const { return status_.ok(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }
  // As Status::IgnoreError; drops the value, too.
  void IgnoreError(const char* why) const { status_.IgnoreError(why); }
  // The value.  REQUIRES: ok().
  T& value() & { return *Checked(this); }
  const T& value() const& { return *Checked(this); }
  T value() && { return std::move(*Checked(this)); }
  T* operator->() { return Checked(this); }
  const T* operator->() const { return Checked(this); }
  T& operator*() { return *Checked(this); }
  const T& operator*() const { return *Checked(this); }

 private:
  template <typename Self>
  static auto* Checked(Self* self) {
    if (!self->value_) DieOfNoValue(self->status_);
    return &*self->value_;
  }

  Status status_;
  std::optional<T> value_;
};

}  // namespace cachecore

#define HOLDFAST_CONCAT_INNER(a, b) a##b
#define HOLDFAST_CONCAT(a, b) HOLDFAST_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr)                                \
  do {                                                       \
    ::cachecore::Status status_macro_value = (expr);         \
    if (!status_macro_value.ok()) return status_macro_value; \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(HOLDFAST_CONCAT(result_macro_value_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(result, lhs, expr)       \
  auto result = (expr);                                \
  if (!result.ok()) return std::move(result).status(); \
  lhs = std::move(result).value()

#endif  // CACHECORE_BASE_STATUS_H_
