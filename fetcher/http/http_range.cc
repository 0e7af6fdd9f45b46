#include "fetcher/http/http_range.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>

namespace fetcher {
namespace {

using cachecore::Result;
using cachecore::Status;

// Takes a decimal number below 2^63 off the front of `text`.
std::optional<uint64_t> TakeNumber(std::string_view* text) {
  uint64_t value = 0;
  const auto [rest, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max() - 1;
  if (error != std::errc() || value > kMax) return std::nullopt;
  text->remove_prefix(static_cast<size_t>(rest - text->data()));
  return value;
}

bool TakeChar(std::string_view* text, char c) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if ((a[i] | 0x20) != (b[i] | 0x20)) return false;
  }
  return true;
}

}  // namespace

Result<ContentRange> ParseContentRange(std::string_view value) {
  const Status bad(EBADMSG, "malformed Content-Range");
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  if (value.size() < 6 || !EqualsIgnoringCase(value.substr(0, 5), "bytes") || value[5] != ' ') {
    return bad;
  }
  value.remove_prefix(6);
  ContentRange parsed;
  if (!TakeChar(&value, '*')) {
    const auto first = TakeNumber(&value);
    if (!first || !TakeChar(&value, '-')) return bad;
    const auto last = TakeNumber(&value);
    if (!last || *last < *first) return bad;
    parsed.range = cachecore::ByteRange{*first, *last + 1};
  }
  if (!TakeChar(&value, '/')) return bad;
  if (!(parsed.range && TakeChar(&value, '*'))) {
    parsed.total = TakeNumber(&value);
    if (!parsed.total) return bad;
    if (parsed.range && parsed.range->end > *parsed.total) return bad;
  }
  if (!value.empty()) return bad;
  return parsed;
}

std::string FormatRange(cachecore::ByteRange range) {
  return std::to_string(range.begin) + "-" + std::to_string(range.end - 1);
}

bool IsPlainText(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

bool IsStrongEtag(std::string_view etag) {
  return etag.size() >= 2 && etag.front() == '"' && etag.back() == '"' && IsPlainText(etag);
}

std::string DescribeHttpStatus(int code) {
  static constexpr struct {
    int code;
    const char* words;
  } kWords[] = {
      {200, "OK"},
      {206, "Partial Content"},
      {301, "Moved Permanently"},
      {302, "Found"},
      {304, "Not Modified"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {407, "Proxy Authentication Required"},
      {408, "Request Timeout"},
      {410, "Gone"},
      {416, "Range Not Satisfiable"},
      {429, "Too Many Requests"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
  };
  for (const auto& entry : kWords) {
    if (entry.code == code) return std::to_string(code) + " " + entry.words;
  }
  return "HTTP status " + std::to_string(code);
}

}  // namespace fetcher
