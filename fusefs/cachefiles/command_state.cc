#include "fusefs/cachefiles/command_state.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <sstream>
#include <utility>

namespace fusefs {

namespace wire = cachecore::wire;

namespace {

constexpr size_t kMaxText = 4095;
constexpr uint64_t kAllPercent = 100;
constexpr char kDefaultTag[] = "CacheFiles";

// The kernel's isspace(), which knows Latin-1's no-break space.
bool IsSpace(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || static_cast<unsigned char>(c) == 0xa0;
}

// Digits at the start of `text`, which they are taken from; 0 without any.  More than fit are too
// many for every caller.
uint64_t TakeNumber(std::string_view* text, int base) {
  uint64_t number = 0;
  const char* const end = text->data() + text->size();
  const auto [stopped, error] = std::from_chars(text->data(), end, number, base);
  text->remove_prefix(static_cast<size_t>(stopped - text->data()));
  return error == std::errc::result_out_of_range ? UINT64_MAX : number;
}

// The number's base is told by its prefix: 0x, 0, or none.
int CheckDebugMask(std::string_view text) {
  int base = 10;
  if (text.starts_with('0')) base = 8;
  const bool is_hex = text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == 'x' &&
                      isxdigit(static_cast<unsigned char>(text[2])) != 0;
  if (is_hex) {
    base = 16;
    text.remove_prefix(2);
  }
  (void)TakeNumber(&text, base);
  return text.empty() ? 0 : -EINVAL;
}

}  // namespace

// Numbers first, then what may have any character in it, with its size.
std::string CommandState::Text() const {
  std::ostringstream text;
  for (const CullLimits& limits : {files_, blocks_}) {
    text << limits.run << ' ' << limits.cull << ' ' << limits.stop << ' ';
  }
  text << bound_ << ' ' << ondemand_ << ' ';
  for (const std::optional<std::string>& kept : {directory_, tag_}) {
    text << (kept ? static_cast<int64_t>(kept->size()) : -1) << ' ' << kept.value_or("");
  }
  for (const CullLimits& limits : {bound_files_, bound_blocks_}) {
    text << ' ' << limits.run << ' ' << limits.cull << ' ' << limits.stop;
  }
  return text.str();
}

bool CommandState::SetText(const std::string& text) {
  CommandState read;
  std::istringstream in(text);
  for (CullLimits* limits : {&read.files_, &read.blocks_}) {
    in >> limits->run >> limits->cull >> limits->stop;
  }
  in >> read.bound_ >> read.ondemand_;
  for (std::optional<std::string>* kept : {&read.directory_, &read.tag_}) {
    int64_t size = -1;
    in >> size;
    in.get();
    if (size < 0 || size > static_cast<int64_t>(text.size())) continue;
    kept->emplace(static_cast<size_t>(size), '\0');
    in.read((*kept)->data(), size);
  }
  if (!in && !text.empty()) return false;
  for (CullLimits* limits : {&read.bound_files_, &read.bound_blocks_}) {
    in >> limits->run >> limits->cull >> limits->stop;
  }
  if (!in) {  // Of a version that had one set of limits.
    read.bound_files_ = read.files_;
    read.bound_blocks_ = read.blocks_;
  }
  *this = text.empty() ? CommandState() : std::move(read);
  return true;
}

int64_t CommandState::Execute(std::string_view text, CommandActions* actions) {
  const size_t size = text.size();
  if (size > kMaxText) return -EOPNOTSUPP;
  if (text.find('\0') != std::string_view::npos) return -EINVAL;
  const size_t newline = text.find('\n');
  if (newline == 0) return -EINVAL;
  text = text.substr(0, newline);
  const auto word_end = std::find_if(text.begin(), text.end(), IsSpace);
  const std::string word(text.begin(), word_end);
  const std::string argument(std::find_if_not(word_end, text.end(), IsSpace), text.end());
  const int result = word.empty() ? -EOPNOTSUPP : Run(word, argument, actions);
  return result == 0 ? static_cast<int64_t>(size) : result;
}

int CommandState::Run(const std::string& word, const std::string& argument,
                      CommandActions* actions) {
  if (word == "bind") return Bind(argument, actions);
  if (word == "copen") return Copen(argument, actions);
  if (word == "restore") return ondemand_ ? actions->Restore() : -EOPNOTSUPP;
  if (word == "cull") return LookUp(true, argument, actions);
  if (word == "inuse") return LookUp(false, argument, actions);
  if (word == "dir") return SetOnce(argument, &directory_);
  if (word == "tag") return SetOnce(argument, &tag_);
  if (word == "debug") return CheckDebugMask(argument);
  // No security module is asked: none may be named.
  if (word == "secctx") return argument.empty() ? -EINVAL : -EOPNOTSUPP;
  return SetLimit(word, argument);
}

int CommandState::SetLimit(const std::string& word, const std::string& argument) {
  const std::string_view kind = std::string_view(word).substr(word.empty() ? 0 : 1);
  const bool is_known = (word.starts_with('f') || word.starts_with('b')) &&
                        (kind == "run" || kind == "cull" || kind == "stop");
  if (!is_known) return -EOPNOTSUPP;
  if (argument.empty()) return -EINVAL;
  std::string_view rest = argument;
  const uint64_t percent = TakeNumber(&rest, 10);
  if (rest != "%") return -EINVAL;
  CullLimits& current = word.starts_with('f') ? files_ : blocks_;
  CullLimits wanted = current;
  (kind == "run" ? wanted.run : kind == "cull" ? wanted.cull : wanted.stop) = percent;
  if (wanted.stop >= wanted.cull || wanted.cull >= wanted.run || wanted.run >= kAllPercent) {
    return -EINVAL;
  }
  current = wanted;
  return 0;
}

int CommandState::SetOnce(const std::string& argument, std::optional<std::string>* text) {
  if (argument.empty()) return -EINVAL;
  if (*text) return -EEXIST;
  *text = argument;
  return 0;
}

int CommandState::Bind(const std::string& argument, CommandActions* actions) {
  if (!directory_) return -EINVAL;
  if (bound_) return -EBUSY;
  if (argument == "ondemand") {
    ondemand_ = true;
  } else if (!argument.empty()) {
    return -EINVAL;
  }
  if (!tag_) tag_ = kDefaultTag;
  bound_files_ = files_;
  bound_blocks_ = blocks_;
  const int result = actions->Bind(*directory_, ondemand_);
  bound_ = result == 0;
  return result;
}

int CommandState::Copen(const std::string& argument, CommandActions* actions) {
  if (!ondemand_) return -EOPNOTSUPP;
  if (argument.empty()) return -EINVAL;
  const cachecore::Result<wire::Command> command = wire::ParseCommand("copen " + argument);
  if (!command.ok()) return -command.status().error();
  return actions->Copen(std::get<wire::CopenCommand>(*command));
}

int CommandState::LookUp(bool cull, const std::string& argument, CommandActions* actions) {
  if (argument.find('/') != std::string::npos) return -EINVAL;
  if (!bound_) return -EIO;
  return cull ? actions->Cull(argument) : actions->InUse(argument);
}

}  // namespace fusefs
