#include "host/report/report_figures.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace host {
namespace {

using cachecore::ByteRange;

constexpr uint64_t kBlock = 4096;

class Parts {
 public:
  explicit Parts(const ReportData& data)
      : data_(data), read_(Intersection(data.read, data.present)) {}

  Shares In(ByteRange window) const {
    Shares shares;
    shares.read = SizeIn(read_, window);
    shares.ahead = SizeIn(data_.present, window) - shares.read;
    shares.culled = SizeIn(data_.culled, window);
    shares.absent = window.size() - shares.present() - shares.culled;
    return shares;
  }
  const Ranges& read() const { return read_; }

 private:
  const ReportData& data_;
  const Ranges read_;
};

void Add(const Shares& part, Shares* sum) {
  sum->read += part.read;
  sum->ahead += part.ahead;
  sum->culled += part.culled;
  sum->absent += part.absent;
}

void CountCells(const ReportData& data, const Parts& parts, Figures* figures) {
  const uint64_t cells = kMapColumns * kMapRows;
  figures->cell_bytes =
      std::max<uint64_t>(1, (data.size_bytes / cells + kBlock - 1) / kBlock) * kBlock;
  while (figures->cell_bytes * cells < data.size_bytes) figures->cell_bytes += kBlock;
  for (uint64_t at = 0; at < data.size_bytes; at += figures->cell_bytes) {
    figures->cells.push_back(parts.In({at, std::min(at + figures->cell_bytes, data.size_bytes)}));
    Add(figures->cells.back(), &figures->shares);
  }
}

void CountFiles(const ReportData& data, const Parts& parts, Figures* figures) {
  Ranges extents;
  for (const ErofsFile& file : data.listing.files) {
    FileFigures one;
    one.file = &file;
    for (const ByteRange extent : file.extents) {
      Add(parts.In(extent), &one.shares);
      one.stored_bytes += extent.size();
      extents.push_back(extent);
    }
    if (one.shares.present() + one.shares.culled > 0) figures->files.push_back(one);
  }
  std::sort(figures->files.begin(), figures->files.end(),
            [](const FileFigures& a, const FileFigures& b) {
              const auto rank = [](const FileFigures& one) {
                return std::tuple(one.shares.read, one.shares.ahead, one.shares.culled);
              };
              return std::pair(rank(b), a.file->path) < std::pair(rank(a), b.file->path);
            });
  // Files may share blocks.
  std::sort(extents.begin(), extents.end(),
            [](ByteRange a, ByteRange b) { return a.begin < b.begin; });
  Ranges merged;
  for (const ByteRange extent : extents) {
    if (!merged.empty() && extent.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, extent.end);
    } else {
      merged.push_back(extent);
    }
  }
  figures->outside_files = SizeOf(parts.read()) - SizeOf(Intersection(parts.read(), merged));
}

// From the first event that is remembered until now.
void CountTime(const ReportData& data, Figures* figures) {
  figures->end_us = data.now_us;
  figures->begin_us = data.now_us;
  for (const ReportedRead& read : data.reads) {
    figures->begin_us = std::min(figures->begin_us, read.started_us);
  }
  for (const ReportedFetch& fetch : data.fetches) {
    figures->begin_us = std::min(figures->begin_us, fetch.started_us);
  }
  figures->timeline.resize(kTimeColumns);
  const int64_t span = std::max<int64_t>(figures->end_us - figures->begin_us, 1);
  const auto column = [&](int64_t us) {
    const int64_t at = (us - figures->begin_us) * static_cast<int64_t>(kTimeColumns) / span;
    return static_cast<size_t>(std::clamp<int64_t>(at, 0, kTimeColumns - 1));
  };
  for (const ReportedFetch& fetch : data.fetches) {
    TimeBucket& bucket = figures->timeline[column(fetch.started_us + fetch.took_us)];
    (fetch.demanded ? bucket.demanded_bytes : bucket.ahead_bytes) += fetch.filled_bytes;
    figures->fetched_bytes += fetch.filled_bytes;
    if (!fetch.demanded) figures->fetched_ahead += fetch.filled_bytes;
  }
  for (const ReportedRead& read : data.reads) {
    const size_t last = column(read.started_us + read.waited_us);
    for (size_t i = column(read.started_us); i <= last; ++i) {
      TimeBucket& bucket = figures->timeline[i];
      bucket.longest_wait_us = std::max(bucket.longest_wait_us, read.waited_us);
    }
    ++figures->timeline[column(read.started_us)].waits;
    if (read.error == 0) continue;
    ++figures->timeline[last].failures;
    ++figures->failures;
  }
}

void FindSlowest(const ReportData& data, Figures* figures) {
  for (const ReportedRead& read : data.reads) figures->slowest.push_back(&read);
  std::sort(figures->slowest.begin(), figures->slowest.end(),
            [](const ReportedRead* a, const ReportedRead* b) {
              return std::pair(b->waited_us, a->started_us) <
                     std::pair(a->waited_us, b->started_us);
            });
  if (figures->slowest.empty()) return;
  figures->longest_wait_us = figures->slowest.front()->waited_us;
  figures->median_wait_us = figures->slowest[figures->slowest.size() / 2]->waited_us;
  if (figures->slowest.size() > kSlowestMax) figures->slowest.resize(kSlowestMax);
}

}  // namespace

Figures Calculate(const ReportData& data) {
  Figures figures;
  const Parts parts(data);
  CountCells(data, parts, &figures);
  CountFiles(data, parts, &figures);
  CountTime(data, &figures);
  FindSlowest(data, &figures);
  return figures;
}

FileIndex::FileIndex(const ErofsListing& listing) {
  for (const ErofsFile& file : listing.files) {
    for (const ByteRange extent : file.extents) {
      by_end_.emplace(extent.end, std::pair(extent.begin, &file));
    }
  }
}

std::vector<const ErofsFile*> FileIndex::At(ByteRange range, size_t max) const {
  std::vector<const ErofsFile*> files;
  for (auto at = by_end_.upper_bound(range.begin); at != by_end_.end(); ++at) {
    if (at->second.first >= range.end || files.size() == max) break;
    if (std::find(files.begin(), files.end(), at->second.second) == files.end()) {
      files.push_back(at->second.second);
    }
  }
  return files;
}

}  // namespace host
