#include "cli/mount_table.h"

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <sstream>

#include "cli/files.h"

namespace cli {
namespace {

using cachecore::Result;
using cachecore::Status;

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string Unescaped(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && IsOctal(text[i + 1]) && IsOctal(text[i + 2]) &&
        IsOctal(text[i + 3])) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

Result<std::string> RealPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
  if (!real) return Status::FromErrno(errno, path);
  return std::string(real.get());
}

}  // namespace

std::vector<MountEntry> ParseMountTable(const std::string& mountinfo) {
  std::vector<MountEntry> table;
  std::istringstream lines(mountinfo);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, mount_point, field;
    fields >> id >> parent >> device >> root >> mount_point;
    while (fields >> field && field != "-") {
    }
    MountEntry entry;
    if (!(fields >> entry.type >> entry.source)) continue;
    fields >> entry.options;
    entry.device = std::move(device);
    entry.root = Unescaped(root);
    entry.mount_point = Unescaped(mount_point);
    entry.source = Unescaped(entry.source);
    entry.options = Unescaped(entry.options);
    table.push_back(std::move(entry));
  }
  return table;
}

Result<std::vector<MountEntry>> ReadMountTable() {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/self/mountinfo"));
  return ParseMountTable(text);
}

const MountEntry* FindMount(const std::vector<MountEntry>& table, const std::string& mount_point) {
  for (auto entry = table.rbegin(); entry != table.rend(); ++entry) {
    if (entry->mount_point == mount_point) return &*entry;
  }
  return nullptr;
}

Result<std::string> PathWithoutEntering(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  const std::string last = slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  if (last.empty() || last == "." || last == "..") return RealPath(trimmed);
  const std::string parent = slash == std::string::npos ? "." : trimmed.substr(0, slash + 1);
  ASSIGN_OR_RETURN(const std::string real_parent, RealPath(parent));
  return (real_parent == "/" ? "" : real_parent) + "/" + last;
}

}  // namespace cli
