#include "cachecore/values/presence_leaf.h"

#include <endian.h>
#include <glog/logging.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

namespace cachecore {
namespace {

// Tags.  Any other first byte is damage; the merge operator uses 0xff for it on purpose.
constexpr char kRunsTag = 0x01;
constexpr char kBitmapTag = 0x02;

// Bits [begin, end) of one word.  REQUIRES: begin < end <= 64.
uint64_t MaskOf(uint32_t begin, uint32_t end) {
  const uint64_t below_end = end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & (~uint64_t{0} << begin);
}

void AppendVarint(uint32_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>((value & 0x7f) | 0x80));
  out->push_back(static_cast<char>(value));
}

void AppendRun(uint32_t skip, uint32_t length, std::string* out) {
  AppendVarint(skip, out);
  AppendVarint(length, out);
}

// Shortest form only, so that a leaf has one encoding as runs.
std::optional<uint32_t> TakeVarint(std::string_view* in) {
  uint32_t value = 0;
  for (size_t i = 0; i < in->size() && i < 3; ++i) {
    const auto byte = static_cast<uint8_t>((*in)[i]);
    value |= uint32_t{byte & 0x7fu} << (7 * i);
    if (byte < 0x80) {
      if (byte == 0 && i > 0) return std::nullopt;
      in->remove_prefix(i + 1);
      return value;
    }
  }
  return std::nullopt;
}

// Calls visit(begin, end) per run; false when the bytes are not runs.
template <typename Visit>
bool ForEachRun(std::string_view pairs, Visit visit) {
  uint32_t position = 0;
  for (bool first = true; !pairs.empty(); first = false) {
    const std::optional<uint32_t> skip = TakeVarint(&pairs);
    if (!skip) return false;
    const std::optional<uint32_t> length = TakeVarint(&pairs);
    if (!length || *length == 0 || (*skip == 0 && !first)) return false;
    const uint32_t begin = position + *skip;  // Varints are below 2^21: no overflow.
    position = begin + *length;
    if (position > PresenceLeaf::kBlocks) return false;
    visit(begin, position);
  }
  return true;
}

}  // namespace

uint32_t PresenceLeaf::Add(uint32_t begin, uint32_t end) {
  CHECK_LE(end, kBlocks);
  if (begin >= end || full()) return 0;
  if (begin == 0 && end == kBlocks) {
    const uint32_t added = kBlocks - count_;
    count_ = kBlocks;
    bits_.reset();
    return added;
  }
  if (!bits_) bits_ = std::make_unique<Bitmap>();
  uint32_t added = 0;
  for (uint32_t word = begin / 64; word * 64 < end; ++word) {
    const uint32_t first = word * 64;
    const uint64_t mask =
        MaskOf(begin > first ? begin - first : 0, end - first < 64 ? end - first : 64);
    uint64_t& bits = (*bits_)[word];
    added += static_cast<uint32_t>(std::popcount(mask & ~bits));
    bits |= mask;
  }
  count_ += added;
  if (full()) bits_.reset();
  return added;
}

uint32_t PresenceLeaf::Remove(uint32_t begin, uint32_t end) {
  CHECK_LE(end, kBlocks);
  if (begin >= end || count_ == 0) return 0;
  if (full()) {
    bits_ = std::make_unique<Bitmap>();
    bits_->fill(~uint64_t{0});
  }
  uint32_t removed = 0;
  for (uint32_t word = begin / 64; word * 64 < end; ++word) {
    const uint32_t first = word * 64;
    const uint64_t mask =
        MaskOf(begin > first ? begin - first : 0, end - first < 64 ? end - first : 64);
    uint64_t& bits = (*bits_)[word];
    removed += static_cast<uint32_t>(std::popcount(mask & bits));
    bits &= ~mask;
  }
  count_ -= removed;
  if (full() || count_ == 0) bits_.reset();
  return removed;
}

uint32_t PresenceLeaf::FirstMissing(uint32_t begin, uint32_t end) const {
  if (begin >= end || full()) return end;
  if (!bits_) return begin;
  for (uint32_t word = begin / 64; word * 64 < end; ++word) {
    uint64_t bits = (*bits_)[word];
    if (word == begin / 64) bits |= (uint64_t{1} << (begin % 64)) - 1;
    const auto ones = static_cast<uint32_t>(std::countr_one(bits));
    if (ones < 64) return word * 64 + ones < end ? word * 64 + ones : end;
  }
  return end;
}

uint32_t PresenceLeaf::FirstPresent(uint32_t begin, uint32_t end) const {
  if (begin >= end || count_ == 0) return end;
  if (full()) return begin;
  for (uint32_t word = begin / 64; word * 64 < end; ++word) {
    uint64_t bits = (*bits_)[word];
    if (word == begin / 64) bits &= ~uint64_t{0} << (begin % 64);
    const auto zeros = static_cast<uint32_t>(std::countr_zero(bits));
    if (zeros < 64) return word * 64 + zeros < end ? word * 64 + zeros : end;
  }
  return end;
}

size_t PresenceLeaf::memory_bytes() const {
  return sizeof(PresenceLeaf) + (bits_ ? sizeof(Bitmap) : 0);
}

std::string PresenceLeaf::Encode() const {
  std::string runs(1, kRunsTag);
  uint32_t position = 0;
  while (runs.size() <= sizeof(Bitmap)) {
    const uint32_t begin = FirstPresent(position, kBlocks);
    if (begin == kBlocks) return runs;
    const uint32_t end = FirstMissing(begin, kBlocks);
    AppendRun(begin - position, end - begin, &runs);
    position = end;
  }
  std::string bitmap(1 + sizeof(Bitmap), kBitmapTag);
  for (uint32_t word = 0; word < kWords; ++word) {
    const uint64_t bits = htole64((*bits_)[word]);
    std::memcpy(&bitmap[1 + word * sizeof(bits)], &bits, sizeof(bits));
  }
  return bitmap;
}

Status PresenceLeaf::Merge(std::string_view encoded, uint32_t* added) {
  *added = 0;
  if (!encoded.empty()) {
    const std::string_view payload = encoded.substr(1);
    if (encoded[0] == kRunsTag && ForEachRun(payload, [](uint32_t, uint32_t) {})) {
      ForEachRun(payload, [&](uint32_t begin, uint32_t end) { *added += Add(begin, end); });
      return Status();
    }
    if (encoded[0] == kBitmapTag && payload.size() == sizeof(Bitmap)) {
      *added = MergeBitmap(payload);
      return Status();
    }
  }
  return Status(EBADMSG,
                "presence leaf of " + std::to_string(encoded.size()) + " bytes does not decode");
}

uint32_t PresenceLeaf::MergeBitmap(std::string_view words) {
  if (full()) return 0;
  if (!bits_) bits_ = std::make_unique<Bitmap>();
  uint32_t added = 0;
  for (uint32_t word = 0; word < kWords; ++word) {
    uint64_t bits;
    std::memcpy(&bits, &words[word * sizeof(bits)], sizeof(bits));
    bits = le64toh(bits);
    added += static_cast<uint32_t>(std::popcount(bits & ~(*bits_)[word]));
    (*bits_)[word] |= bits;
  }
  count_ += added;
  if (full() || count_ == 0) bits_.reset();
  return added;
}

std::string PresenceLeaf::EncodeRun(uint32_t begin, uint32_t end) {
  CHECK(begin < end && end <= kBlocks) << begin << ", " << end;
  std::string run(1, kRunsTag);
  AppendRun(begin, end - begin, &run);
  return run;
}

}  // namespace cachecore
