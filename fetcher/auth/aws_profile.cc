#include "fetcher/auth/aws_profile.h"

#include <algorithm>
#include <cerrno>

namespace fetcher {
namespace {

constexpr char kBlanks[] = " \t\r";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

}  // namespace

AwsProfile ParseAwsProfile(std::string_view text, std::string_view section) {
  AwsProfile profile;
  bool inside = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    const std::string_view trimmed = Trim(line);
    if (trimmed.empty() || trimmed[0] == '#' || trimmed[0] == ';') continue;
    if (trimmed[0] == '[') {
      inside = trimmed.back() == ']' && Trim(trimmed.substr(1, trimmed.size() - 2)) == section;
      continue;
    }
    const size_t equals = line.find('=');
    if (!inside || line[0] == ' ' || line[0] == '\t' || equals == std::string_view::npos) continue;
    profile[std::string(Trim(line.substr(0, equals)))] = Trim(line.substr(equals + 1));
  }
  return profile;
}

cachecore::Result<std::vector<std::string>> SplitCommand(std::string_view command) {
  std::vector<std::string> words;
  bool in_word = false;
  char quote = '\0';
  for (const char c : command) {
    if (quote != '\0') {
      if (c == quote) {
        quote = '\0';
      } else {
        words.back().push_back(c);
      }
      continue;
    }
    if (c == ' ' || c == '\t') {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (c == '\'' || c == '"') {
      quote = c;
    } else {
      words.back().push_back(c);
    }
  }
  if (quote != '\0') return cachecore::Status(EINVAL, "a quote does not end");
  if (words.empty()) return cachecore::Status(EINVAL, "there is no command");
  return words;
}

}  // namespace fetcher
