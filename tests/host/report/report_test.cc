// The numbers and the page of a report.

#include <gtest/gtest.h>

#include <cerrno>

#include "host/report/report_figures.h"
#include "host/report/report_page.h"
#include "host/report/report_text.h"

namespace host {
namespace {

using cachecore::ByteRange;

constexpr uint64_t kMiB = 1 << 20;

// 64 MiB: 16 present, of which 4 and 2 more that are gone were read; 8 evicted.
ReportData Known() {
  ReportData data;
  data.instance = "default";
  data.mount_point = "/mnt/<os> & \"more\"";
  data.url = "https://o/os.erofs";
  data.size_bytes = 64 * kMiB;
  data.now_us = 100'000'000;
  data.now_unix_us = 1'800'000'000'000'000;
  data.present = {{0, 8 * kMiB}, {16 * kMiB, 24 * kMiB}};
  data.read = {{2 * kMiB, 4 * kMiB}, {7 * kMiB, 10 * kMiB}, {23 * kMiB, 24 * kMiB}};
  data.culled = {{8 * kMiB, 16 * kMiB}};
  const auto read = [](ByteRange range, int64_t started_s, int64_t waited_s) {
    ReportedRead one;
    one.range = range;
    one.started_us = started_s * 1'000'000;
    one.waited_us = waited_s * 1'000'000;
    return one;
  };
  data.reads = {read({0, kMiB}, 90, 2), read({0, kMiB}, 95, 5), read({kMiB, 2 * kMiB}, 99, 1)};
  data.reads[0].why = "connection refused";
  data.reads[1].error = EIO;
  data.reads[1].why = "HTTP 404";
  data.reads[2].waits = true;
  data.fetches = {{{0, 8 * kMiB}, 8 * kMiB, 80'000'000, 1'000'000, true},
                  {{16 * kMiB, 24 * kMiB}, 8 * kMiB, 80'000'000, 20'000'000, false}};
  data.listing.files = {{"/bin/a", 2 * kMiB, {{2 * kMiB, 4 * kMiB}}},
                        {"/bin/b", 8 * kMiB, {{16 * kMiB, 24 * kMiB}}},
                        {"/never", kMiB, {{40 * kMiB, 41 * kMiB}}}};
  return data;
}

TEST(ReportTest, EachByteIsReadOrAheadOrEvictedOrAbsent) {
  const Figures figures = Calculate(Known());
  EXPECT_EQ(figures.shares.read, 4 * kMiB);
  EXPECT_EQ(figures.shares.ahead, 12 * kMiB);
  EXPECT_EQ(figures.shares.culled, 8 * kMiB);
  EXPECT_EQ(figures.shares.absent, 40 * kMiB);
  EXPECT_EQ(figures.outside_files, kMiB);
}

TEST(ReportTest, FilesAreThoseWithBytesTheMostReadFirst) {
  const ReportData data = Known();
  const Figures figures = Calculate(data);
  ASSERT_EQ(figures.files.size(), 2u);
  EXPECT_EQ(figures.files[0].file->path, "/bin/a");
  EXPECT_EQ(figures.files[0].shares.read, 2 * kMiB);
  EXPECT_EQ(figures.files[1].shares.read, kMiB);
  EXPECT_EQ(figures.files[1].shares.ahead, 7 * kMiB);
  const FileIndex index(data.listing);
  ASSERT_EQ(index.At({3 * kMiB, 17 * kMiB}, 3).size(), 2u);
  EXPECT_EQ(index.At({3 * kMiB, 17 * kMiB}, 1).size(), 1u);
  EXPECT_TRUE(index.At({4 * kMiB, 16 * kMiB}, 3).empty());
}

TEST(ReportTest, TheTimelineBeginsWithTheFirstEventAndEndsNow) {
  const ReportData data = Known();
  const Figures figures = Calculate(data);
  EXPECT_EQ(figures.begin_us, 80'000'000);
  EXPECT_EQ(figures.fetched_bytes, 16 * kMiB);
  EXPECT_EQ(figures.fetched_ahead, 8 * kMiB);
  EXPECT_EQ(figures.timeline[6].demanded_bytes, 8 * kMiB);
  EXPECT_EQ(figures.timeline.back().ahead_bytes, 8 * kMiB);
  EXPECT_EQ(figures.timeline.back().failures, 1u);
  EXPECT_EQ(figures.timeline[75].longest_wait_us, 0);
  EXPECT_EQ(figures.timeline[100].longest_wait_us, 5'000'000);
  EXPECT_EQ(figures.slowest.front()->why, "HTTP 404");
}

TEST(ReportTest, AnImageOfAnySizeHasAllItsBytesInTheMap) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, 5 * kMiB + 17,
                              kMiB * kMapColumns * kMapRows * 4 + 1}) {
    ReportData data;
    data.size_bytes = size;
    const Figures figures = Calculate(data);
    EXPECT_EQ(figures.shares.absent, size);
    EXPECT_LE(figures.cells.size(), kMapColumns * kMapRows);
    EXPECT_NE(ReportPage(data).find("</html>"), std::string::npos);
  }
}

TEST(ReportTest, ThePageAsksForNothingAndTakesNamesAsText) {
  ReportData data = Known();
  data.listing.files[0].path = "/<script>alert(1)</script>\xff\n";
  const std::string page = ReportPage(data);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("src="), std::string::npos);
  EXPECT_EQ(page.find("href="), std::string::npos);
  EXPECT_EQ(page.find("url("), std::string::npos);
  EXPECT_NE(page.find("/mnt/&lt;os&gt; &amp; &quot;more&quot;"), std::string::npos);
  EXPECT_NE(page.find("waits still"), std::string::npos);
  EXPECT_NE(page.find("id=\"read\" data-value=\"4194304\""), std::string::npos);
}

TEST(ReportTest, AnImageWithoutFilesSaysWhy) {
  ReportData data = Known();
  data.listing = {};
  data.why_no_files = "not an EROFS image";
  EXPECT_NE(ReportPage(data).find("The files are left out: not an EROFS image."),
            std::string::npos);
}

}  // namespace
}  // namespace host
