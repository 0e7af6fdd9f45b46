#include "fetcher/auth/registry_challenge.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <nlohmann/json.hpp>

namespace fetcher {
namespace {

using cachecore::Duration;
using cachecore::Result;
using cachecore::Status;
using nlohmann::json;

// What a token service means that does not say.
constexpr Duration kDefaultLifetime = std::chrono::seconds(60);
constexpr Duration kLongestLifetime = std::chrono::hours(24);
constexpr size_t kMaxErrorCode = 64;

bool IsTokenChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// What is left of a header field, taken from its front.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool AtEnd() const { return text_.empty(); }
  void Skip(std::string_view chars) {
    text_.remove_prefix(std::min(text_.find_first_not_of(chars), text_.size()));
  }
  bool Take(char c) {
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  // In lower case; "" when there is none.
  std::string TakeToken() {
    std::string token;
    for (; !text_.empty() && IsTokenChar(text_.front()); text_.remove_prefix(1)) {
      token += static_cast<char>(std::tolower(static_cast<unsigned char>(text_.front())));
    }
    return token;
  }
  std::string TakeValue() {
    std::string value;
    if (!Take('"')) {
      for (; !text_.empty() && text_.front() != ',' && text_.front() != ' ';
           text_.remove_prefix(1)) {
        value += text_.front();
      }
      return value;
    }
    while (!text_.empty() && !Take('"')) {
      if (text_.front() == '\\' && text_.size() > 1) text_.remove_prefix(1);
      value += text_.front();
      text_.remove_prefix(1);
    }
    return value;
  }
  void Drop() { text_.remove_prefix(std::min<size_t>(1, text_.size())); }

 private:
  std::string_view text_;
};

}  // namespace

std::vector<Challenge> ParseChallenges(std::string_view header) {
  std::vector<Challenge> challenges;
  Scanner scanner(header);
  for (scanner.Skip(", \t"); !scanner.AtEnd(); scanner.Skip(", \t")) {
    const std::string token = scanner.TakeToken();
    if (token.empty()) {
      scanner.Drop();
      continue;
    }
    scanner.Skip(" \t");
    if (!scanner.Take('=')) {
      challenges.push_back({token, {}});
      continue;
    }
    scanner.Skip(" \t");
    std::string value = scanner.TakeValue();
    if (!challenges.empty()) challenges.back().parameters[token] = std::move(value);
  }
  return challenges;
}

std::string ParseErrorCode(std::string_view body) {
  const json root = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("errors")) return "";
  const json& errors = root["errors"];
  if (!errors.is_array() || errors.empty() || !errors[0].is_object()) return "";
  const auto code = errors[0].find("code");
  if (code == errors[0].end() || !code->is_string()) return "";
  const std::string text = code->get<std::string>();
  const bool is_code = text.size() <= kMaxErrorCode &&
                       text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == std::string::npos;
  return is_code ? text : "";
}

Result<RegistryToken> ParseToken(std::string_view body) {
  const json root = json::parse(body, nullptr, /*allow_exceptions=*/false);
  const Status none(EPROTO, "answers without a token");
  if (!root.is_object()) return none;
  RegistryToken answer;
  for (const char* name : {"token", "access_token"}) {
    const auto found = root.find(name);
    const bool is_first = answer.token.empty() && found != root.end() && found->is_string();
    if (is_first) answer.token = found->get<std::string>();
  }
  if (answer.token.empty()) return none;
  const auto is_plain = [](char c) { return c > 0x20 && c < 0x7f; };
  if (!std::all_of(answer.token.begin(), answer.token.end(), is_plain)) {
    return Status(EPROTO, "answers with a bad token: it has a byte that no header may have");
  }
  answer.lifetime = kDefaultLifetime;
  const auto life = root.find("expires_in");
  const double seconds = life != root.end() && life->is_number() ? life->get<double>() : 0;
  if (seconds > 0) {
    const double most = std::chrono::duration<double>(kLongestLifetime).count();
    answer.lifetime = std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>(std::min(seconds, most)));
  }
  return answer;
}

}  // namespace fetcher
