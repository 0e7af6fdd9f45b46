#include "host/report/report_text.h"

#include <cstdio>
#include <ctime>

#include "cachecore/base/hex.h"
#include "cachecore/base/json_fields.h"

namespace host {

std::string Html(const std::string& text) {
  // As JSON it is UTF-8, whatever it was.
  const nlohmann::json clean = nlohmann::json::parse(
      cachecore::JsonText(nlohmann::json(cachecore::WithoutControls(text))), nullptr, false);
  std::string html;
  for (const char c : clean.is_string() ? clean.get<std::string>() : std::string()) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string ShareText(uint64_t part, uint64_t whole) {
  if (whole == 0 || part == 0) return "0 %";
  return Fixed(100 * static_cast<double>(part) / static_cast<double>(whole), 1) + " %";
}

std::string TimeText(int64_t us) {
  if (us < 1'000'000) return Fixed(static_cast<double>(us) / 1e3, us < 10'000 ? 1 : 0) + " ms";
  return Fixed(static_cast<double>(us) / 1e6, 2) + " s";
}

std::string ClockText(int64_t unix_us) {
  const std::time_t seconds = unix_us / 1'000'000;
  std::tm fields = {};
  localtime_r(&seconds, &fields);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &fields);
  return text;
}

}  // namespace host
