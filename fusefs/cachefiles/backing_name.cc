#include "fusefs/cachefiles/backing_name.h"

#include <sys/xattr.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>

#include "cachecore/base/parse_text.h"

namespace fusefs {

using cachecore::ObjectNumber;
using cachecore::Result;
using cachecore::Status;

namespace {

constexpr char kNumberAttribute[] = "user.holdfast.object";

constexpr size_t kWord = 4;
constexpr size_t kGroup = 3;  // Bytes that base64 writes as four digits.
// Linux's multiplier for hashes of 32 bits.
constexpr uint32_t kGoldenRatio = 0x61C88647;
constexpr char kDigits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";

size_t RoundUp(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

uint32_t WordAt(std::string_view bytes, size_t at, bool is_big_endian) {
  uint32_t word = 0;
  for (size_t i = 0; i < kWord; ++i) {
    const size_t index = at + i;
    const uint32_t byte = index < bytes.size() ? static_cast<unsigned char>(bytes[index]) : 0;
    word |= byte << (8 * (is_big_endian ? kWord - 1 - i : i));
  }
  return word;
}

// Over the words of `bytes`, padded with zeros to `size`.
uint32_t Hash(uint32_t salt, std::string_view bytes, size_t size) {
  uint32_t x = 0;
  uint32_t y = salt;
  for (size_t at = 0; at < size; at += kWord) {
    x ^= WordAt(bytes, at, /*is_big_endian=*/false);
    y ^= x;
    x = std::rotl(x, 7) + y;
    y = std::rotl(y, 20) * 9;
  }
  return (y ^ x * kGoldenRatio) * kGoldenRatio;
}

bool IsPlain(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte > ' ' && byte <= 0x7f && c != '/';
}

// Words in hexadecimal, the first after `letter` and the others after commas; nothing stands for 0.
std::string InHex(std::string_view key, char letter, bool is_big_endian) {
  std::string text;
  for (size_t at = 0; at < key.size(); at += kWord) {
    char digits[16] = "";
    const uint32_t word = WordAt(key, at, is_big_endian);
    if (word != 0) std::snprintf(digits, sizeof(digits), "%x", word);
    text += (at == 0 ? letter : ',');
    text += digits;
  }
  return text;
}

std::string InBase64(std::string_view key) {
  std::string text = {'E', static_cast<char>('0' + RoundUp(key.size(), kGroup) - key.size())};
  for (size_t at = 0; at < key.size(); at += kGroup) {
    uint32_t group = WordAt(key.substr(at, kGroup), 0, /*is_big_endian=*/false);
    for (size_t i = 0; i <= kGroup; ++i, group >>= 6) text += kDigits[group & 63];
  }
  return text;
}

std::string FileName(std::string_view key) {
  if (std::all_of(key.begin(), key.end(), IsPlain)) return "D" + std::string(key);
  const std::string big = InHex(key, 'S', /*is_big_endian=*/true);
  const std::string little = InHex(key, 'T', /*is_big_endian=*/false);
  const std::string& hex = big.size() <= little.size() ? big : little;
  const std::string base64 = InBase64(key);
  return hex.size() < base64.size() ? hex : base64;
}

}  // namespace

BackingName BackingNameOf(std::string_view volume, std::string_view cookie) {
  // The kernel hashes a volume's key with its length before it and a NUL behind it.
  std::string counted(1, static_cast<char>(volume.size()));
  counted += volume;
  const uint32_t salt = Hash(0, counted, RoundUp(counted.size() + 1, kWord));
  const uint32_t hash = Hash(salt, cookie, RoundUp(cookie.size(), kWord));
  char fan_out[8];
  std::snprintf(fan_out, sizeof(fan_out), "@%02x", hash & 0xff);
  return {"I" + std::string(volume), fan_out, FileName(cookie)};
}

Result<ObjectNumber> ReadNumber(int file) {
  char text[32];
  const ssize_t size = fgetxattr(file, kNumberAttribute, text, sizeof(text));
  if (size < 0 && errno != ENODATA && errno != EOPNOTSUPP && errno != ERANGE) {
    return Status::FromErrno(errno, kNumberAttribute);
  }
  if (size <= 0) return ObjectNumber{};
  const Result<uint64_t> number =
      cachecore::ParseSize(std::string(text, static_cast<size_t>(size)));
  return ObjectNumber{number.ok() ? *number : 0};
}

ObjectNumber NumberOf(int file) {
  const Result<ObjectNumber> number = ReadNumber(file);
  return number.ok() ? *number : ObjectNumber{};
}

bool SetNumber(int file, ObjectNumber number) {
  const std::string text = std::to_string(number.value);
  return fsetxattr(file, kNumberAttribute, text.data(), text.size(), 0) == 0;
}

}  // namespace fusefs
