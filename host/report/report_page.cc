#include "host/report/report_page.h"

#include <cstring>
#include <ctime>

#include "cachecore/base/progress.h"
#include "host/report/report_figures.h"
#include "host/report/report_pictures.h"
#include "host/report/report_text.h"

namespace host {
namespace {

using cachecore::BytesText;

constexpr size_t kFilesMax = 200;
constexpr size_t kFilesOfRead = 2;

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --page: #fbfbf9; --ink: #1c1d1f; --soft: #5c6068; --line: #d9d9d4; --none: #e6e6e1;
  --read: #1a6fb5; --ahead: #6fb3a0; --culled: #d79a3c; --wait: #b8433a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e8e8e4; --soft: #a3a7ae; --line: #34373c; --none: #2b2e33;
    --read: #5aa9ea; --ahead: #4f9a86; --culled: #d79a3c; --wait: #e2736a; } }
body { margin: 0 auto; padding: 24px 32px 64px; max-width: 1152px; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 22px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 34px 0 4px; }
p { margin: 4px 0 10px; color: var(--soft); overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
dl { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 18px 0 0; background: var(--line);
  border: 1px solid var(--line); }
dl div { background: var(--page); padding: 8px 12px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }
dd small { font-size: 13px; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 8px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
td.n, th.n { text-align: right; white-space: nowrap; }
td { overflow-wrap: anywhere; }
.key span { display: inline-block; margin-right: 18px; }
.key i { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
.read { fill: var(--read); background: var(--read); } .ahead { fill: var(--ahead); background: var(--ahead); }
.culled { fill: var(--culled); background: var(--culled); } .absent { fill: var(--none); background: var(--none); }
.wait { fill: var(--wait); opacity: .7; background: var(--wait); } .failed { fill: var(--wait); }
.level1 { opacity: .45; } .level2 { opacity: .65; } .level3 { opacity: .8; } .absent { opacity: 1; }
.column { fill: transparent; } .column:hover { fill: var(--none); } .axis { fill: var(--soft); }
.scale { fill: var(--soft); font-size: 12px; text-anchor: end; } .start { text-anchor: start; }
)";

// `value` is for tests and for other programs.
std::string Figure(const char* id, const std::string& name, const std::string& text, uint64_t value,
                   const std::string& note) {
  return "<div><dt>" + Html(name) + "</dt><dd id=\"" + id + "\" data-value=\"" +
         std::to_string(value) + "\">" + Html(text) + " <small>" + Html(note) +
         "</small></dd></div>\n";
}

std::string Cell(const std::string& text, bool is_number) {
  return std::string("<td") + (is_number ? " class=\"n\"" : "") + ">" + Html(text) + "</td>";
}

std::string Heading(std::initializer_list<const char*> numbers, const char* first,
                    const char* last = nullptr) {
  std::string row = "<tr><th>" + Html(first) + "</th>";
  for (const char* number : numbers) row += "<th class=\"n\">" + Html(number) + "</th>";
  return row + (last == nullptr ? "" : "<th>" + Html(last) + "</th>") + "</tr>\n";
}

std::string FiguresPart(const ReportData& data, const Figures& figures) {
  const Shares& shares = figures.shares;
  const auto part = [&data](const char* id, const char* name, uint64_t bytes) {
    return Figure(id, name, BytesText(bytes), bytes, ShareText(bytes, data.size_bytes));
  };
  const uint64_t used = shares.present() == 0 ? 0 : shares.read;
  return "<dl>\n" +
         Figure("size", "Image", BytesText(data.size_bytes), data.size_bytes,
                ShareText(shares.present(), data.size_bytes) + " present") +
         part("read", "Read", shares.read) +
         part("ahead", "Fetched ahead, not read", shares.ahead) +
         part("absent", "Never fetched", shares.absent) + part("culled", "Evicted", shares.culled) +
         Figure("waits", "Reads that had to wait", std::to_string(data.reads.size()),
                data.reads.size(), std::to_string(figures.failures) + " failed") +
         Figure("longest", "Longest wait", TimeText(figures.longest_wait_us),
                static_cast<uint64_t>(figures.longest_wait_us),
                "median " + TimeText(figures.median_wait_us)) +
         Figure("use", "Of what is present, read", ShareText(used, shares.present()), used,
                "lazy loading has left " + ShareText(shares.absent, data.size_bytes)) +
         "</dl>\n";
}

std::string MapPart(const ReportData& data, const Figures& figures, const FileIndex& files) {
  return "<h2>The image, from its first byte to its last</h2>\n"
         "<p class=\"key\"><span><i class=\"read\"></i>read</span><span><i "
         "class=\"ahead\"></i>fetched "
         "ahead, not read</span><span><i class=\"culled\"></i>evicted</span><span><i "
         "class=\"absent\"></i>never fetched</span><span>a cell is " +
         Html(BytesText(figures.cell_bytes)) + "</span></p>\n" + MapPicture(data, figures, files);
}

std::string TimePart(const ReportData& data, const Figures& figures) {
  if (data.reads.empty() && data.fetches.empty()) {
    return "<h2>Fetches and stalls</h2>\n<p>Nothing was fetched and no read has waited since the "
           "daemon began.</p>\n";
  }
  return "<h2>Fetches and stalls</h2>\n"
         "<p class=\"key\"><span><i class=\"read\"></i>fetched for a reader that "
         "waits</span><span><i "
         "class=\"ahead\"></i>fetched ahead</span><span><i class=\"wait\"></i>the longest wait of "
         "a "
         "read</span><span>" +
         Html(BytesText(figures.fetched_bytes)) + " in " + std::to_string(data.fetches.size()) +
         " fetches, " + Html(BytesText(figures.fetched_ahead)) + " of it ahead</span></p>\n" +
         TimePicture(data, figures);
}

std::string FilesPart(const ReportData& data, const Figures& figures) {
  std::string html = "<h2>What was read, file by file</h2>\n";
  if (!data.why_no_files.empty()) {
    return html + "<p id=\"no-files\">The files are left out: " + Html(data.why_no_files) +
           ".</p>\n";
  }
  size_t read = 0;
  for (const FileFigures& file : figures.files) read += file.shares.read > 0 ? 1 : 0;
  html += "<p><span id=\"files-read\" data-value=\"" + std::to_string(read) + "\">" +
          std::to_string(read) + "</span> of " + std::to_string(data.listing.files.size()) +
          " files were read, and " + Html(BytesText(figures.outside_files)) +
          " of no file: directories, inodes, and what has no name here.";
  if (data.listing.unread > 0) {
    html += " " + std::to_string(data.listing.unread) +
            " files or directories have no name here, since their metadata is not in the cache.";
  }
  if (data.listing.is_cut) html += " The image has more files than are listed.";
  html += "</p>\n<table id=\"files\">\n" +
          Heading({"size", "in the image", "read", "ahead", "evicted"}, "file");
  for (size_t i = 0; i < figures.files.size() && i < kFilesMax; ++i) {
    const FileFigures& file = figures.files[i];
    html += "<tr>" + Cell(file.file->path, false) + Cell(BytesText(file.file->size_bytes), true) +
            Cell(BytesText(file.stored_bytes), true) +
            Cell(ShareText(file.shares.read, file.stored_bytes), true) +
            Cell(ShareText(file.shares.ahead, file.stored_bytes), true) +
            Cell(ShareText(file.shares.culled, file.stored_bytes), true) + "</tr>\n";
  }
  html += "</table>\n";
  if (figures.files.size() > kFilesMax) {
    html += "<p>and " + std::to_string(figures.files.size() - kFilesMax) + " more.</p>\n";
  }
  return html;
}

std::string ErrorText(int error) {
  const char* const text = strerrordesc_np(error);
  return text != nullptr ? text : "error " + std::to_string(error);
}

std::string ReadsPart(const ReportData& data, const Figures& figures, const FileIndex& files) {
  std::string html = "<h2>The slowest reads</h2>\n";
  if (figures.slowest.empty()) return html + "<p>No read has waited.</p>\n";
  html += "<table id=\"reads\">\n" + Heading({"waited"}, "began", "reader");
  html.insert(html.size() - std::strlen("</tr>\n"), "<th>where</th><th>why</th>");
  for (const ReportedRead* read : figures.slowest) {
    std::string where = read->range.ToString();
    for (const ErofsFile* file : files.At(read->range, kFilesOfRead)) where += " " + file->path;
    const std::string state = read->waits        ? "waits still: "
                              : read->error == 0 ? ""
                                                 : "failed, " + ErrorText(read->error) + ": ";
    const std::string reader =
        read->pid == 0 ? "not known" : read->command + " (" + std::to_string(read->pid) + ")";
    const int64_t unix_us = data.now_unix_us - data.now_us + read->started_us;
    html += "<tr>" + Cell(ClockText(unix_us), false) + Cell(TimeText(read->waited_us), true) +
            Cell(reader, false) + Cell(where, false) + Cell(state + read->why, false) + "</tr>\n";
  }
  return html + "</table>\n";
}

}  // namespace

std::string ReportPage(const ReportData& data) {
  const Figures figures = Calculate(data);
  const FileIndex files(data.listing);
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
         "'unsafe-inline'\">\n"
         "<meta name=\"viewport\" content=\"width=device-width\">\n<title>" +
         Html(data.mount_point) + ": holdfast report</title>\n<style>" + kStyle +
         "</style>\n</head>\n<body>\n<h1>" + Html(data.mount_point) + "</h1>\n<p>" +
         Html(data.url) + ", instance " + Html(data.instance) + ", at " +
         ClockText(data.now_unix_us) + ". What was read, evicted and waited for is known since " +
         ClockText(data.daemon_started_unix_s * 1'000'000) +
         ", when this daemon began; bytes that the kernel has in memory are not read again.</p>\n" +
         FiguresPart(data, figures) + MapPart(data, figures, files) + TimePart(data, figures) +
         FilesPart(data, figures) + ReadsPart(data, figures, files) + "</body>\n</html>\n";
}

}  // namespace host
