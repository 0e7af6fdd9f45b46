#include "cachecore/store/store_fault_points.h"

namespace cachecore {

std::vector<std::pair<Fault, Fault>> FaultPointsOf(const MetadataBatch& batch) {
  std::vector<std::pair<Fault, Fault>> points;
  if (!FaultPointsArmed()) return points;
  const auto note = [&](bool applies, Fault before, Fault after) {
    if (applies) points.emplace_back(before, after);
  };
  const auto adds = [&](Presence kind) {
    return !batch.add_presence.empty() && batch.add_presence.front().presence == kind;
  };
  note(!batch.erase_objects.empty(), Fault::kBeforeCommitErase, Fault::kCommittedErase);
  note(!batch.put_volumes.empty(), Fault::kBeforeCommitVolume, Fault::kCommittedVolume);
  note(!batch.put_objects.empty(), Fault::kBeforeCommitObject, Fault::kCommittedObject);
  note(!batch.remove_presence.empty(), Fault::kBeforeCommitRemoval, Fault::kCommittedRemoval);
  note(adds(Presence::kThisBoot), Fault::kBeforeCommitPresence, Fault::kCommittedPresence);
  note(adds(Presence::kDurable), Fault::kBeforeCommitDurable, Fault::kCommittedDurable);
  note(!batch.put_journal.empty(), Fault::kBeforeCommitRequest, Fault::kCommittedRequest);
  note(!batch.erase_journal.empty(), Fault::kBeforeCommitRequestEnd, Fault::kCommittedRequestEnd);
  note(batch.HasChoices(), Fault::kBeforeCommitChoice, Fault::kCommittedChoice);
  return points;
}

}  // namespace cachecore
