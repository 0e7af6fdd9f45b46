#include "snapshotter/filter.h"

#include <re2/re2.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace snapshotter {
namespace {

using cachecore::Result;
using cachecore::Status;

void AppendUtf8(uint32_t c, std::string* text) {
  const auto add = [text](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xc0 | (c >> 6)), add(0x80 | (c & 63));
  } else if (c < 0x10000) {
    add(0xe0 | (c >> 12)), add(0x80 | ((c >> 6) & 63)), add(0x80 | (c & 63));
  } else {
    add(0xf0 | (c >> 18)), add(0x80 | ((c >> 12) & 63)), add(0x80 | ((c >> 6) & 63));
    add(0x80 | (c & 63));
  }
}

}  // namespace

// A cursor over one filter.
class Filter::Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Result<Selectors> Parse() {
    Selectors selectors;
    do {
      ASSIGN_OR_RETURN(Selector selector, One());
      selectors.push_back(std::move(selector));
      SkipBlanks();
    } while (Take(","));
    if (at_ != text_.size()) return Fault("a comma or the end is expected");
    return selectors;
  }

 private:
  Result<Selector> One() {
    Selector selector;
    do {
      ASSIGN_OR_RETURN(std::string part, FieldPart());
      selector.field.push_back(std::move(part));
    } while (Take("."));
    SkipBlanks();
    if (Take("==")) {
      selector.test = Test::kEqual;
    } else if (Take("!=")) {
      selector.test = Test::kUnequal;
    } else if (Take("~=")) {
      selector.test = Test::kMatches;
    } else if (at_ == text_.size() || text_[at_] == ',') {
      return selector;
    } else {
      return Fault("only ==, != and ~= can be asked for");
    }
    SkipBlanks();
    const bool is_expression = selector.test == Test::kMatches;
    ASSIGN_OR_RETURN(selector.value, is_expression ? Expression() : Value());
    if (!is_expression) return selector;
    auto expression = std::make_shared<re2::RE2>(selector.value, re2::RE2::Quiet);
    if (!expression->ok()) return Fault("no regular expression: " + expression->error());
    selector.expression = std::move(expression);
    return selector;
  }

  void SkipBlanks() { at_ = std::min(text_.find_first_not_of(" \t\n", at_), text_.size()); }

  // Between slashes or bars only the mark itself is escaped.
  Result<std::string> Expression() {
    const char mark = at_ < text_.size() ? text_[at_] : '\0';
    if (mark != '/' && mark != '|') return Value();
    std::string value;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == mark) {
        ++at_;
        return value;
      }
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        if (text_[at_ + 1] != mark) value += '\\';
        ++at_;
      }
      value += text_[at_];
    }
    return Fault("a closing " + std::string(1, mark) + " is expected");
  }

  Result<std::string> FieldPart() {
    SkipBlanks();
    if (at_ < text_.size() && text_[at_] == '"') return Quoted();
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '_')) {
      ++at_;
    }
    if (begin == at_) return Fault("a field is expected");
    return text_.substr(begin, at_ - begin);
  }

  Result<std::string> Value() {
    if (at_ < text_.size() && text_[at_] == '"') return Quoted();
    const size_t end = std::min(text_.find_first_of(", \t\n", at_), text_.size());
    if (end == at_) return Fault("a value is expected");
    std::string value = text_.substr(at_, end - at_);
    at_ = end;
    return value;
  }

  Result<std::string> Quoted() {
    std::string value;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        ++at_;
        return value;
      }
      if (text_[at_] != '\\') {
        value += text_[at_];
      } else {
        ++at_;
        RETURN_IF_ERROR(Escape(&value));
      }
    }
    return Fault("a closing quote is expected");
  }

  // What follows a backslash; leaves at_ on its last character.
  Status Escape(std::string* value) {
    constexpr std::pair<char, char> kPlain[] = {{'a', '\a'}, {'b', '\b'},  {'f', '\f'},
                                                {'n', '\n'}, {'r', '\r'},  {'t', '\t'},
                                                {'v', '\v'}, {'\\', '\\'}, {'"', '"'}};
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    for (const auto& [letter, meaning] : kPlain) {
      if (c == letter) {
        value->push_back(meaning);
        return {};
      }
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t number = 0;
    for (size_t i = 1; i <= digits; ++i) {
      const char digit = at_ + i < text_.size() ? text_[at_ + i] : '\0';
      if (std::isxdigit(static_cast<unsigned char>(digit)) == 0) {
        return Fault("a hexadecimal digit is expected");
      }
      const int lower = std::tolower(static_cast<unsigned char>(digit));
      number = number * 16 + static_cast<uint32_t>(lower <= '9' ? lower - '0' : lower - 'a' + 10);
    }
    if (digits == 0 || number > 0x10ffff) return Fault("this escape is not known");
    at_ += digits;
    if (c == 'x') {
      value->push_back(static_cast<char>(number));
    } else {
      AppendUtf8(number, value);
    }
    return {};
  }

  bool Take(const char* token) {
    const std::string wanted = token;
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    return true;
  }

  Status Fault(const std::string& what) const {
    return Status(EINVAL, "filter " + text_ + ", column " + std::to_string(at_ + 1) + ": " + what);
  }

  const std::string& text_;
  size_t at_ = 0;
};

Result<Filter> Filter::Parse(const std::vector<std::string>& texts) {
  Filter filter;
  bool everything = texts.empty();
  for (const std::string& text : texts) {
    if (text.empty()) {
      everything = true;
      continue;
    }
    ASSIGN_OR_RETURN(Selectors selectors, Parser(text).Parse());
    filter.alternatives_.push_back(std::move(selectors));
  }
  if (everything) filter.alternatives_.clear();
  return filter;
}

std::optional<std::string> Filter::FieldOf(const SnapshotRecord& record,
                                           const std::vector<std::string>& field) {
  if (field.size() == 1 && field[0] == "name") return record.name;
  if (field.size() == 1 && field[0] == "parent") return record.parent;
  if (field.size() == 1 && field[0] == "kind") return KindName(record.kind);
  if (field.size() == 1 || field[0] != "labels") return std::nullopt;
  // A label's name has dots of its own.
  std::string name = field[1];
  for (size_t i = 2; i < field.size(); ++i) name += "." + field[i];
  const auto label = record.labels.find(name);
  if (label == record.labels.end()) return std::nullopt;
  return label->second;
}

bool Filter::Holds(const Selector& selector, const SnapshotRecord& record) {
  const std::optional<std::string> value = FieldOf(record, selector.field);
  switch (selector.test) {
    case Test::kPresent:
      return value.has_value();
    case Test::kEqual:
      return value == selector.value;
    case Test::kUnequal:
      return value != selector.value;
    case Test::kMatches:
      return re2::RE2::PartialMatch(value.value_or(""), *selector.expression);
  }
  return false;
}

bool Filter::Matches(const SnapshotRecord& record) const {
  if (alternatives_.empty()) return true;
  return std::any_of(alternatives_.begin(), alternatives_.end(), [&](const Selectors& selectors) {
    return std::all_of(selectors.begin(), selectors.end(),
                       [&](const Selector& selector) { return Holds(selector, record); });
  });
}

}  // namespace snapshotter
