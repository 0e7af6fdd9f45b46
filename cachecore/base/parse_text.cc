#include "cachecore/base/parse_text.h"

#include <cctype>
#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>

#include "cachecore/base/hex.h"

namespace cachecore {
namespace {

// Splits "12.5ms" into its number and its unit.
template <typename Number>
bool Split(const std::string& text, Number* number, std::string* unit) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, *number);
  unit->assign(rest, end);
  return error == std::errc() && *number >= Number{};
}

}  // namespace

Result<Duration> ParseDuration(const std::string& text) {
  double number = 0;
  std::string unit;
  const bool split = Split(text, &number, &unit);
  double seconds = -1;
  if (unit.empty() || unit == "s") seconds = number;
  if (unit == "ms") seconds = number / 1000;
  if (unit == "m") seconds = number * 60;
  if (unit == "h") seconds = number * 3600;
  if (!split || seconds < 0 || seconds > 1e9) {
    return Status(EINVAL, "\"" + text + "\" is not a duration: a number and ms, s, m or h");
  }
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

Result<uint64_t> ParseSize(const std::string& text) {
  uint64_t number = 0;
  std::string unit;
  const bool split = Split(text, &number, &unit);
  if (unit.size() == 3 && unit.substr(1) == "iB") unit.resize(1);
  const std::string units = "KMGT";
  int shift = -1;
  if (unit.empty()) shift = 0;
  if (unit.size() == 1 && units.find(unit) != std::string::npos) {
    shift = 10 * (static_cast<int>(units.find(unit)) + 1);
  }
  if (!split || shift < 0 || number > (std::numeric_limits<uint64_t>::max() >> shift)) {
    return Status(EINVAL, "\"" + text + "\" is not a size: a whole number and K, M, G or T");
  }
  return number << shift;
}

Result<SizeOrPercent> ParseSizeOrPercent(const std::string& text) {
  if (!text.ends_with('%')) {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseSize(text));
    return SizeOrPercent{bytes, 0};
  }
  SizeOrPercent parsed;
  std::string unit;
  if (!Split(text, &parsed.percent, &unit) || unit != "%" || parsed.percent < 1 ||
      parsed.percent > 100) {
    return Status(EINVAL, "\"" + text + "\" is not from 1% to 100%");
  }
  return parsed;
}

Result<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const std::optional<std::string> byte = BytesOfHex(text.substr(i + 1, 2));
    if (!byte || byte->size() != 1 || (*byte)[0] == '\0') {
      return Status(EINVAL, "a '%' that is no escape");
    }
    out += *byte;
    i += 2;
  }
  return out;
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace cachecore
