#include "host/report/report_pictures.h"

#include <algorithm>
#include <cmath>

#include "cachecore/base/byte_range.h"
#include "cachecore/base/progress.h"
#include "host/report/report_text.h"

namespace host {
namespace {

using cachecore::ByteRange;
using cachecore::BytesText;

constexpr size_t kWidth = 1152;
constexpr size_t kCell = kWidth / kMapColumns;
constexpr size_t kBar = 9;     // A column of the timeline, its gap included.
constexpr size_t kLeft = 72;   // Of its scale.
constexpr size_t kUp = 110;    // The height of the rates,
constexpr size_t kDown = 70;   // and of the waits.
constexpr size_t kLevels = 4;  // How strongly a cell is coloured.
constexpr size_t kTitleFiles = 3;

std::string Number(size_t value) { return std::to_string(value); }

std::string Rect(const std::string& kind, size_t x, size_t y, size_t width, size_t height) {
  return "<rect class=\"" + kind + "\" x=\"" + Number(x) + "\" y=\"" + Number(y) + "\" width=\"" +
         Number(width) + "\" height=\"" + Number(height) + "\"";
}

std::string Text(const std::string& kind, size_t x, size_t y, const std::string& text) {
  return "<text class=\"" + kind + "\" x=\"" + Number(x) + "\" y=\"" + Number(y) + "\">" +
         Html(text) + "</text>";
}

// By what matters most in it: what was read, fetched ahead, culled; and how much of it.
std::string KindOf(const Shares& shares) {
  const uint64_t size = shares.present() + shares.culled + shares.absent;
  const char* kind = "absent";
  uint64_t part = size;
  if (shares.read > 0) {
    kind = "read";
    part = shares.read;
  } else if (shares.ahead > 0) {
    kind = "ahead";
    part = shares.ahead;
  } else if (shares.culled > 0) {
    kind = "culled";
    part = shares.culled;
  }
  const uint64_t level = size == 0 ? kLevels : (part * kLevels + size - 1) / size;
  return std::string(kind) + " level" + Number(level);
}

std::string TitleOf(const Shares& shares, ByteRange range, const FileIndex& files) {
  std::string title = BytesText(range.begin) + " to " + BytesText(range.end) + ": read " +
                      ShareText(shares.read, range.size()) + ", fetched ahead " +
                      ShareText(shares.ahead, range.size()) + ", evicted " +
                      ShareText(shares.culled, range.size());
  for (const ErofsFile* file : files.At(range, kTitleFiles)) title += "\n" + Html(file->path);
  return title;
}

}  // namespace

std::string MapPicture(const ReportData& data, const Figures& figures, const FileIndex& files) {
  const size_t rows = (figures.cells.size() + kMapColumns - 1) / kMapColumns;
  std::string svg = "<svg id=\"map\" role=\"img\" aria-label=\"Map of the image\" viewBox=\"0 0 " +
                    Number(kWidth) + " " + Number(rows * kCell) + "\">\n";
  for (size_t i = 0; i < figures.cells.size(); ++i) {
    const ByteRange range{i * figures.cell_bytes,
                          std::min((i + 1) * figures.cell_bytes, data.size_bytes)};
    svg += Rect(KindOf(figures.cells[i]), i % kMapColumns * kCell, i / kMapColumns * kCell,
                kCell - 1, kCell - 1) +
           "><title>" + TitleOf(figures.cells[i], range, files) + "</title></rect>\n";
  }
  return svg + "</svg>\n";
}

std::string TimePicture(const ReportData& data, const Figures& figures) {
  uint64_t most = 1;
  int64_t longest = 1;
  for (const TimeBucket& bucket : figures.timeline) {
    most = std::max(most, bucket.demanded_bytes + bucket.ahead_bytes);
    longest = std::max(longest, bucket.longest_wait_us);
  }
  const double bucket_s =
      std::max(1e-6, static_cast<double>(figures.end_us - figures.begin_us) / 1e6 / kTimeColumns);
  const auto height = [](double value, double of, size_t pixels) {
    return static_cast<size_t>(std::ceil(value / of * static_cast<double>(pixels)));
  };
  const size_t axis = kUp + 8;
  std::string svg = "<svg id=\"timeline\" role=\"img\" aria-label=\"Timeline\" viewBox=\"0 0 " +
                    Number(kWidth) + " " + Number(axis + kDown + 24) + "\">\n";
  for (size_t i = 0; i < figures.timeline.size(); ++i) {
    const TimeBucket& bucket = figures.timeline[i];
    const size_t x = kLeft + i * kBar;
    const auto demanded = static_cast<double>(bucket.demanded_bytes);
    const auto ahead = static_cast<double>(bucket.ahead_bytes);
    const size_t low = height(demanded, static_cast<double>(most), kUp);
    const size_t high = std::max(low, height(demanded + ahead, static_cast<double>(most), kUp));
    const size_t down =
        height(static_cast<double>(bucket.longest_wait_us), static_cast<double>(longest), kDown);
    svg += "<g><title>" +
           Html("fetched for readers " + BytesText(bucket.demanded_bytes) + ", ahead " +
                BytesText(bucket.ahead_bytes) +
                "; reads that began to wait: " + Number(bucket.waits) + ", the longest wait " +
                TimeText(bucket.longest_wait_us) + ", failed: " + Number(bucket.failures)) +
           "</title>" + Rect("column", x, 0, kBar - 1, axis + kDown) + "/>";
    if (low > 0) svg += Rect("read", x, axis - low, kBar - 1, low) + "/>";
    if (high > low) svg += Rect("ahead", x, axis - high, kBar - 1, high - low) + "/>";
    if (down > 0) {
      svg += Rect(bucket.failures > 0 ? "failed" : "wait", x, axis + 1, kBar - 1, down) + "/>";
    }
    svg += "</g>\n";
  }
  const int64_t unix_begin = data.now_unix_us - data.now_us + figures.begin_us;
  svg += Rect("axis", kLeft, axis, kTimeColumns * kBar, 1) + "/>\n";
  svg +=
      Text("scale", kLeft - 6, 14, Fixed(static_cast<double>(most) / bucket_s / 1e6, 1) + " MB/s");
  svg += Text("scale", kLeft - 6, axis + kDown - 2, TimeText(longest));
  svg += Text("scale start", kLeft, axis + kDown + 18, ClockText(unix_begin));
  svg += Text("scale", kLeft + kTimeColumns * kBar, axis + kDown + 18, ClockText(data.now_unix_us));
  return svg + "</svg>\n";
}

}  // namespace host
