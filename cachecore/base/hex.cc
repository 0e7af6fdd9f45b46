#include "cachecore/base/hex.h"

namespace cachecore {
namespace {

std::string TextWith(const char* digits, std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

}  // namespace

std::string HexText(std::string_view bytes) { return TextWith("0123456789abcdef", bytes); }

std::string UpperHexText(std::string_view bytes) { return TextWith("0123456789ABCDEF", bytes); }

int HexValue(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

std::optional<std::string> BytesOfHex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = HexValue(text[i]);
    const int low = HexValue(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

std::string WithoutControls(std::string_view text) {
  std::string shown;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_control = byte < 0x20 || byte == 0x7f;
    const auto digit = [byte](int shift) { return static_cast<char>('0' + (byte >> shift & 7)); };
    shown += is_control ? std::string{'\\', digit(6), digit(3), digit(0)} : std::string(1, c);
  }
  return shown;
}

}  // namespace cachecore
