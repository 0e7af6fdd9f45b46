#include "host/config/config_file.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <fcntl.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <sstream>
#include <string_view>
#include <tuple>
#include <utility>

#include "cachecore/base/unique_fd.h"
#include "cachecore/environment/secret_file.h"
#include "cachecore/system/files.h"

namespace host {
namespace {

using cachecore::Result;
using cachecore::UniqueFd;

// The instance alone sets its directories and processes.  A flag that ends the program at once is no
// setting.
constexpr std::array<std::string_view, 26> kNoSettings = {
    "boot-id",     "cache-dir",   "check-flags", "check-pid",       "check-state",
    "device",      "fault-file",  "fetcher-uid", "flagfile",        "fromenv",
    "fuse-dir",    "help",        "helpfull",    "helpmatch",       "helpon",
    "helppackage", "helpshort",   "helpxml",     "keep-connection", "list-fault-points",
    "run-dir",     "sources-dir", "tryfromenv",  "undefok",         "user",
    "version"};
constexpr std::array<std::string_view, 5> kInstanceKeys = {
    "cache-dir", "fetcher-user", "metrics-listen", "no-spare", "watchdog"};

template <typename List>
bool Has(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

int LineOf(const toml::source_region& region) { return static_cast<int>(region.begin.line); }

std::optional<std::string> TextOf(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) {
    std::ostringstream text;
    text << number->get();
    return text.str();
  }
  return std::nullopt;
}

class Reader {
 public:
  Reader(const std::string& file, Config* config) : file_(file), config_(*config) {}

  void Take(const std::string& text);

 private:
  void Fault(int line, const std::string& key, const std::string& what) {
    config_.faults.push_back({file_, line, key, what});
  }
  void TakeKey(const std::string& table, const std::string& key, const toml::node& node);

  const std::string file_;
  Config& config_;
};

void Reader::Take(const std::string& text) {
  const toml::parse_result parsed = toml::parse(text, file_);
  if (!parsed) {
    return Fault(LineOf(parsed.error().source()), "", std::string(parsed.error().description()));
  }
  for (const auto& [name, node] : parsed.table()) {
    const std::string table(name.str());
    const int line = LineOf(node.source());
    const bool is_known =
        table == kConfigInstance || table == kConfigDaemon || table == kConfigFetcher;
    const toml::table* const keys = node.as_table();
    if (!is_known || keys == nullptr) {
      Fault(line, table,
            is_known ? "it is a table: [" + table + "]"
                     : "there is no such " + std::string(keys != nullptr ? "table" : "key") +
                           "; the tables are [instance], [holdfastd] and [holdfast-fetcherd]");
      continue;
    }
    for (const auto& [key, value] : *keys) TakeKey(table, std::string(key.str()), value);
  }
}

void Reader::TakeKey(const std::string& table, const std::string& key, const toml::node& node) {
  const int line = LineOf(node.source());
  const std::string name = table + "." + key;
  const std::optional<std::string> value = TextOf(node);
  if (!value) return Fault(line, name, "its value is neither a string, a number nor a boolean");
  if (value->find_first_of(std::string_view("\n\0", 2)) != std::string::npos) {
    return Fault(line, name, "its value has a line break");
  }
  const auto is_plain = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  if (!std::all_of(key.begin(), key.end(), is_plain)) {
    return Fault(line, name,
                 "no flag has this name; flags are written as --help has them, with "
                 "small letters and dashes");
  }
  if (table == kConfigInstance && !Has(kInstanceKeys, key)) {
    return Fault(line, name,
                 "there is no such key in [instance]; it has cache-dir, fetcher-user, "
                 "metrics-listen, no-spare and watchdog");
  }
  if (table != kConfigInstance && Has(kNoSettings, key)) {
    return Fault(line, name,
                 key == "cache-dir" ? "the key belongs in [instance]"
                                    : "the instance sets this itself; remove the key");
  }
  const auto is_same = [&](const ConfigEntry& entry) {
    return entry.table == table && entry.key == key;
  };
  std::erase_if(config_.entries, is_same);  // An earlier file's.
  config_.entries.push_back({file_, line, table, key, *value});
}

// A user who can change the file decides what runs as root.
std::string WhyUntrusted(const struct stat& info) {
  if (!S_ISREG(info.st_mode)) return "it is no regular file";
  if (info.st_uid != 0 && info.st_uid != geteuid()) return "it belongs to another user than root";
  const bool others_write = (info.st_mode & (S_IWGRP | S_IWOTH)) != 0;
  return others_write ? "other users than root may write to it" : "";
}

}  // namespace

std::string ConfigFault::Text() const {
  return file + (line > 0 ? ":" + std::to_string(line) : "") + ": " +
         (key.empty() ? "" : key + ": ") + what;
}

std::vector<std::string> ConfigFilesOf(const Instance& instance) {
  std::vector<std::string> files;
  const std::string first = instance.ConfigFile();
  if (access(first.c_str(), F_OK) == 0 || errno != ENOENT) files.push_back(first);
  for (const std::string& name : cachecore::ListDirectory(first + ".d")) {
    if (name.ends_with(".conf") && !name.starts_with('.')) files.push_back(first + ".d/" + name);
  }
  return files;
}

void ParseConfig(const std::string& file, const std::string& text, Config* config) {
  Reader(file, config).Take(text);
  const auto order = [](const ConfigEntry& entry) { return std::tie(entry.table, entry.key); };
  std::sort(config->entries.begin(), config->entries.end(),
            [&order](const auto& a, const auto& b) { return order(a) < order(b); });
}

Config ReadConfig(const Instance& instance) {
  Config config;
  for (const std::string& file : ConfigFilesOf(instance)) {
    const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat info;
    if (!fd.valid() || fstat(fd.get(), &info) != 0) {
      config.faults.push_back({file, 0, "", cachecore::Status::FromErrno(errno, "open").message()});
      continue;
    }
    if (const std::string why = WhyUntrusted(info); !why.empty()) {
      config.faults.push_back({file, 0, "", why});
      continue;
    }
    const Result<std::string> text = cachecore::ReadOpenFile(fd, file);
    if (!text.ok()) {
      config.faults.push_back({file, 0, "", text.status().message()});
      continue;
    }
    ParseConfig(file, *text, &config);
  }
  return config;
}

}  // namespace host
