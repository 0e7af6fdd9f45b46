#include "snapshotter/mount_table.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;

constexpr char kTable[] = "/proc/self/mountinfo";

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// "\040" is a space.
std::string Unescape(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && IsOctal(text[i + 1]) && IsOctal(text[i + 2]) &&
        IsOctal(text[i + 3])) {
      plain.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                        (text[i + 3] - '0')));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

}  // namespace

Result<MountTable> MountTable::Read() {
  std::ifstream file(kTable);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (text.empty()) return Status(EIO, std::string(kTable) + " can't be read; is /proc mounted?");
  return Parse(text);
}

MountTable MountTable::Parse(const std::string& mountinfo) {
  MountTable table;
  std::istringstream lines(mountinfo);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point;
    if (fields >> id >> parent >> device >> root >> point) table.points_.insert(Unescape(point));
  }
  return table;
}

bool MountTable::HasMountAtOrBelow(const std::string& path) const {
  if (HasMountAt(path)) return true;
  const std::string prefix = path + "/";
  const auto next = points_.lower_bound(prefix);
  return next != points_.end() && next->starts_with(prefix);
}

}  // namespace snapshotter
