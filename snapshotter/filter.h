// Filter: which snapshots a List asks for, in containerd's words.
//
// Model    filters are alternatives; one filter is selectors joined by commas, all of which must
//          hold: FIELD (it is there), FIELD==VALUE, FIELD!=VALUE, FIELD~=EXPRESSION.  Fields are
//          name, parent, kind and labels.NAME; no snapshot has another one.  Names and values may
//          stand in double quotes with Go's escapes, expressions between slashes or bars too.
//          Blanks may stand around all of these.
// Errors   Parse: EINVAL with the filter and the column.
// Threads  immutable.
// See      containerd 1.6, filters/parser.go.

#ifndef SNAPSHOTTER_FILTER_H_
#define SNAPSHOTTER_FILTER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachecore/base/status.h"
#include "snapshotter/snapshot_record.h"

namespace re2 {
class RE2;
}

namespace snapshotter {

class Filter {
 public:
  // No text, or an empty one, matches every snapshot.
  static cachecore::Result<Filter> Parse(const std::vector<std::string>& texts);

  bool Matches(const SnapshotRecord& record) const;

 private:
  enum class Test { kPresent, kEqual, kUnequal, kMatches };
  struct Selector {
    std::vector<std::string> field;
    Test test = Test::kPresent;
    std::string value;
    std::shared_ptr<const re2::RE2> expression;  // Of kMatches.
  };
  class Parser;
  using Selectors = std::vector<Selector>;

  static std::optional<std::string> FieldOf(const SnapshotRecord& record,
                                            const std::vector<std::string>& field);
  static bool Holds(const Selector& selector, const SnapshotRecord& record);

  std::vector<Selectors> alternatives_;  // None: everything matches.
};

}  // namespace snapshotter

#endif  // SNAPSHOTTER_FILTER_H_
