// Status, Result<T>: how every fallible function in this tree reports what went wrong.
//
// Model    success, or one errno plus a sentence.  The errno is what a reader, a fetcher or an exit
//          code is finally given, so it is the only code there is; nothing maps codes to codes.
// Errors   expected failures are Status; a broken invariant is a glog CHECK; persisted state that
//          does not decode is Status with EBADMSG.
// Threads  immutable value types.
// Cost     success is one null pointer.

#ifndef CACHECORE_STATUS_H_
#define CACHECORE_STATUS_H_

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
  // Returns the same error with "context: " put before its message.
  Status WithContext(const std::string& context) &&;

 private:
  struct Rep {
    int error;
    std::string message;
  };
  std::unique_ptr<Rep> rep_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return status_.ok(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T value() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }

 private:
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

#endif  // CACHECORE_STATUS_H_
