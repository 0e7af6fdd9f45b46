#include "cachecore/cache/culler.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "cachecore/base/fault_point.h"

namespace cachecore {
namespace {

// Replies that are on their way use the file for so long at most; a sync of it may take longer.
constexpr Duration kPatience = std::chrono::milliseconds(500);
// A look-up comes before the mount that it is for.
constexpr Duration kUnusedAfter = std::chrono::seconds(10);
constexpr Duration kLookAgain = std::chrono::milliseconds(1);

// What CullObject takes out at a time.
constexpr uint64_t kStep = 32 << 20;

// So much more than what is present may be allocated before it is looked where.
constexpr uint64_t kSlack = 64 << 10;

Duration AgeOf(const DataFile& file) {
  return std::chrono::seconds(WallSeconds() - std::min(WallSeconds(), file.used));
}

uint64_t PresentIn(const PresenceMap& presence, ByteRange range) {
  uint64_t present = range.size();
  for (const ByteRange gap : presence.Gaps(range)) present -= gap.size();
  return present;
}

uint64_t TreeBytes(const std::optional<Digest>& digest, uint64_t size_bytes) {
  const uint64_t end = digest ? VerityLayout(size_bytes).tail_end() : 0;
  return end - std::min(end, size_bytes);
}

// Whether a request may bring bytes of `range`, of one part: none is longer.
bool IsAskedFor(const Object& object, ByteRange range) {
  const auto next = object.in_flight.lower_bound(range.begin);
  if (next != object.in_flight.end() && next->first < range.end) return true;
  return next != object.in_flight.begin() &&
         std::prev(next)->first + PartUses::kPartBytes > range.begin;
}

ByteRange PartAt(uint64_t at, uint64_t size_bytes) {
  return ByteRange::At(at - at % PartUses::kPartBytes, PartUses::kPartBytes)
      .Intersect({0, size_bytes});
}

// No mount, no reader and no reply has it.
bool IsUnused(const Object& object, const Culler::IsMounted& is_mounted) {
  return object.IsFileUnused() && object.waiting.empty() && object.acquires.empty() &&
         !is_mounted(object.volume_key, object.cookie_key);
}

// A hole is no use of the file: what no record speaks of is as old as its mtime (DataFile::used).
Status PunchHole(int fd, ByteRange range) {
  struct stat before;
  const bool is_known = fstat(fd, &before) == 0;
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.begin),
                static_cast<off_t>(range.size())) != 0) {
    return Status::FromErrno(errno, "punch a hole of " + range.ToString());
  }
  const timespec times[2] = {{0, UTIME_OMIT}, before.st_mtim};
  // Without it the rest of the file goes a little later.
  if (is_known) (void)futimens(fd, times);
  return Status();
}

}  // namespace

Culler::Culler(const Clock& clock, const Parts& parts)
    : clock_(clock),
      store_(parts.store),
      data_(parts.data),
      choices_(parts.choices),
      ids_(parts.ids),
      core_(parts.core),
      catalogue_(parts.catalogue),
      durability_(parts.durability),
      device_(parts.device) {}

bool Culler::AddParts(const Known& known, std::vector<CullPart>* parts) const {
  const uint64_t size = known.size_bytes;
  const Duration now = clock_.Now();
  for (uint64_t at = 0; (at = known.presence.FirstPresent({at, size})) < size;) {
    const ByteRange range = PartAt(at, size);
    const Duration used = known.uses.LastUse(at / PartUses::kPartBytes);
    parts->push_back(
        {known.file.number, range, PresentIn(known.presence, range), known.is_mounted, now - used});
    at = range.end;
  }
  const uint64_t present = known.presence.present_bytes();
  if (present > 0 || known.is_asked_for) {
    return known.file.allocated > present + known.tree_bytes + kSlack;
  }
  if (known.file.allocated > kBlockSize) {
    parts->push_back({known.file.number, {0, size}, known.file.allocated, false, Duration::max()});
  }
  return false;
}

// What a fetcher wrote and never declared, and what a death left.  No reader has a use for it.
void Culler::AddLeftOver(const DataFile& file, std::vector<CullPart>* parts) {
  std::vector<ByteRange> extents;
  const Status scanned =
      data_.ScanExtents(file.number, [&](ByteRange extent) { extents.push_back(extent); });
  if (!scanned.ok()) VLOG(1) << scanned.message();
  // Behind the object's bytes the file has its Merkle tree.
  const auto add = [&](uint64_t size, const PresenceMap& presence, const auto& is_asked_for) {
    std::vector<CullPart> found;
    for (const ByteRange extent : extents) {
      const ByteRange data = extent.Intersect({0, size});
      for (uint64_t at = data.begin; at < data.end;) {
        const ByteRange range = PartAt(at, size);
        if (found.empty() || !(found.back().range == range)) {
          found.push_back({file.number, range, 0, false, Duration::max()});
        }
        found.back().bytes += range.Intersect(data).size();
        at = range.end;
      }
    }
    for (const CullPart& part : found) {
      if (PresentIn(presence, part.range) == 0 && !is_asked_for(part.range)) parts->push_back(part);
    }
  };
  {
    MutexLock lock(&core_->mu);
    if (const Object* object = core_->engine.Find(file.number)) {
      add(object->size_bytes, object->presence,
          [object](ByteRange range) { return IsAskedFor(*object, range); });
      return;
    }
  }
  const auto record = store_->LoadObject(file.number);
  if (!record.ok() || !record->has_value()) return;
  const auto presence = store_->LoadPresence(file.number, (*record)->size_bytes);
  if (!presence.ok()) return;
  add((*record)->size_bytes, *presence, [](ByteRange) { return false; });
}

bool Culler::FindLoaded(const DataFile& file, const IsMounted& is_mounted,
                        std::vector<CullPart>* parts, bool* has_more, uint64_t* pinned) {
  MutexLock lock(&core_->mu);
  const Object* object = core_->engine.Find(file.number);
  if (object == nullptr) return false;
  if (choices_->IsPinned(object->volume_key, object->cookie_key)) {
    *pinned += file.allocated;
    return true;
  }
  if (!object->size_known) return true;
  *has_more =
      AddParts({file, object->size_bytes, object->presence, object->uses,
                TreeBytes(object->digest, object->size_bytes),
                is_mounted(object->volume_key, object->cookie_key), !object->in_flight.empty()},
               parts);
  return true;
}

void Culler::FindOnDisk(const DataFile& file, const IsMounted& is_mounted,
                        std::vector<CullPart>* parts, bool* has_more, uint64_t* pinned) {
  const auto record = store_->LoadObject(file.number);
  if (record.ok() && record->has_value()) {
    const ObjectRecord& known = **record;
    const auto volume = catalogue_->LoadVolume(known.volume);
    if (volume.ok() && volume->has_value() && choices_->IsPinned((*volume)->key, known.cookie)) {
      *pinned += file.allocated;
      return;
    }
    const auto presence = store_->LoadPresence(file.number, known.size_bytes);
    if (volume.ok() && volume->has_value() && presence.ok()) {
      PartUses uses;
      uses.Restore(store_->LoadUses(file.number), file.used, clock_.Now());
      *has_more = AddParts(
          {file, known.size_bytes, *presence, uses, TreeBytes(known.verity, known.size_bytes),
           is_mounted((*volume)->key, known.cookie), false},
          parts);
      return;
    }
  }
  // No object's, or a damaged one's: Cull finds that out.
  parts->push_back({file.number, {0, file.size_bytes}, file.allocated, false, AgeOf(file)});
}

Result<std::vector<CullPart>> Culler::FindParts(const IsMounted& is_mounted, uint64_t* allocated,
                                                uint64_t* pinned) {
  std::vector<DataFile> files;
  *allocated = *pinned = 0;
  RETURN_IF_ERROR(data_.Scan([&](const DataFile& file) {
    *allocated += file.allocated;
    if (file.allocated > 0) files.push_back(file);
  }));
  std::sort(files.begin(), files.end(),
            [](const DataFile& a, const DataFile& b) { return a.number.value < b.number.value; });
  std::vector<CullPart> parts;
  for (const DataFile& file : files) {
    bool has_more = false;
    if (!FindLoaded(file, is_mounted, &parts, &has_more, pinned)) {
      FindOnDisk(file, is_mounted, &parts, &has_more, pinned);
    }
    if (has_more) AddLeftOver(file, &parts);
  }
  std::stable_sort(parts.begin(), parts.end(), [](const CullPart& a, const CullPart& b) {
    return a.is_mounted != b.is_mounted ? b.is_mounted : a.age > b.age;
  });
  return parts;
}

Result<Culler::Begun> Culler::Begin(ObjectNumber number, ByteRange range) {
  RETURN_IF_ERROR(ids_->EnsureIds());
  RETURN_IF_ERROR(catalogue_->LoadUnused(number));
  std::vector<std::weak_ptr<const UniqueFd>> earlier;
  Begun begun;
  {
    MutexLock lock(&core_->mu);
    Object* object = core_->engine.Find(number);
    if (object == nullptr || object->file == nullptr) return Status(EBUSY, "the object is in use");
    if (choices_->IsPinned(object->volume_key, object->cookie_key)) {
      return Status(EBUSY, object->volume_key + "/" + object->cookie_key + " is pinned");
    }
    const uint64_t size = object->size_bytes;
    range = range.Intersect({0, size});
    const bool is_last = object->in_flight.empty() &&
                         PresentIn(object->presence, range) == object->presence.present_bytes();
    if (is_last) range = {0, size};
    UniqueFd again(fcntl(object->file->get(), F_DUPFD_CLOEXEC, 0));
    if (!again.valid()) return Status::FromErrno(errno, "another descriptor of the data file");
    if (!core_->engine.BeginCull(object, range,
                                 std::make_shared<const UniqueFd>(std::move(again)))) {
      return Status(EBUSY, "bytes " + range.ToString() + " are waited for");
    }
    begun = {*object->culling, range};
    // Its last block is whole in the file.  The tree is of no use without a block, and no fetcher
    // writes to it while no READ of the object is delivered.
    if (range.end == size) begun.hole.end = size + (kBlockSize - size % kBlockSize) % kBlockSize;
    if (is_last) begun.hole.end += TreeBytes(object->digest, size);
    earlier = object->earlier_files;
  }
  // The replies that were begun before are sent from those bytes.
  const auto is_used = [](const auto& file) { return !file.expired(); };
  for (const Duration end = clock_.Now() + kPatience;
       std::any_of(earlier.begin(), earlier.end(), is_used);) {
    if (clock_.Now() > end) {
      Cancel(number);
      return Status(ETIMEDOUT, "bytes " + range.ToString() + " are in use");
    }
    std::this_thread::sleep_for(kLookAgain);
  }
  // What the fetcher has written and not declared yet must not count.  Not before: the end of the
  // instance costs what it was fetching, which must not be in vain.
  if (const Status ids = ids_->EnsureIds(); !ids.ok()) {
    Cancel(number);
    return ids;
  }
  {
    Transaction transaction(core_);
    Object* object = core_->engine.Find(number);
    if (object == nullptr) return Status(ESTALE, "the object was dropped");
    core_->engine.EndInstance(object, /*tell=*/true, transaction.effects());
  }
  // A fill that was begun before may have recorded presence in the range.
  device_->AwaitFills();
  return begun;
}

void Culler::Cancel(ObjectNumber number) {
  Transaction transaction(core_);
  Object* object = core_->engine.Find(number);
  if (object != nullptr && object->culling) {
    core_->engine.CancelCull(object, transaction.effects());
  }
}

Status Culler::Cull(ObjectNumber number, ByteRange range) {
  MutexLock culling(&cull_mu_);
  ASSIGN_OR_RETURN(const Begun begun, Begin(number, range));
  MetadataBatch batch;
  for (const ByteRange part : begun.culling.present) {
    batch.remove_presence.push_back({number, part, Presence::kDurable});
  }
  if (const Status recorded = durability_->RemovePresence(batch); !recorded.ok()) {
    Cancel(number);
    return recorded;
  }
  std::shared_ptr<const UniqueFd> file;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr) return Status();  // Dropped, with its file.
    file = object->file;
  }
  FaultPoint(Fault::kCullRecorded);
  const Status punched = PunchHole(file->get(), begun.hole);
  LOG_IF(ERROR, !punched.ok()) << data_.PathOf(number)
                               << " does not become smaller: " << punched.message();
  FaultPoint(Fault::kCullPunched);
  Transaction transaction(core_);
  Object* object = core_->engine.Find(number);
  if (object != nullptr && object->culling) {
    core_->engine.EndCull(object, transaction.effects());
  }
  return punched;
}

Status Culler::CullObject(ObjectNumber number) {
  RETURN_IF_ERROR(catalogue_->LoadUnused(number));
  std::vector<ByteRange> steps;  // Readers wait for one of them at most.
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr || !object->size_known) return Status(EBUSY, "the object is in use");
    const uint64_t size = object->size_bytes;
    for (uint64_t at = 0; (at = object->presence.FirstPresent({at, size})) < size;) {
      const ByteRange part = PartAt(at, size);
      if (!steps.empty() && steps.back().end == part.begin && steps.back().size() < kStep) {
        steps.back().end = part.end;
      } else {
        steps.push_back(part);
      }
      at = part.end;
    }
    if (steps.empty()) steps.push_back({0, size});  // What is allocated without being present.
  }
  const auto is_used = [](const Status& why) {
    return why.error() == EBUSY || why.error() == ETIMEDOUT;
  };
  for (const ByteRange step : steps) {
    const Status culled = Cull(number, step);
    if (!culled.ok() && !is_used(culled)) return culled;
    if (culled.ok()) continue;
    for (ByteRange part{step.begin, step.begin}; part.end < step.end;) {
      part = PartAt(part.end, step.end);
      const Status one = Cull(number, part);
      if (!one.ok() && !is_used(one)) return one;
    }
  }
  return Status();
}

Status Culler::DropUnused(ObjectNumber number, const IsMounted& is_mounted) {
  MutexLock culling(&cull_mu_);
  RETURN_IF_ERROR(ids_->EnsureIds());
  RETURN_IF_ERROR(catalogue_->LoadUnused(number));
  MutexLock load_lock(&catalogue_->load_mu);
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    const bool is_unused =
        object != nullptr && IsUnused(*object, is_mounted) &&
        !choices_->IsPinned(object->volume_key, object->cookie_key) &&
        (object->used == Duration::zero() || core_->engine.tick() - object->used > kUnusedAfter);
    if (!is_unused) return Status(EBUSY, "the object is in use");
  }
  return catalogue_->DropObject(number, "the disk has no room, and no mount shows it");
}

// The pin goes first: after a death in between it is an object like others.
Status Culler::Drop(ObjectNumber number, const IsMounted& is_mounted) {
  MutexLock culling(&cull_mu_);
  RETURN_IF_ERROR(ids_->EnsureIds());
  RETURN_IF_ERROR(catalogue_->LoadUnused(number));
  MutexLock load_lock(&catalogue_->load_mu);
  std::string volume, cookie;
  {
    MutexLock lock(&core_->mu);
    const Object* object = core_->engine.Find(number);
    if (object == nullptr || !IsUnused(*object, is_mounted)) {
      return Status(EBUSY, "the object is in use");
    }
    volume = object->volume_key;
    cookie = object->cookie_key;
  }
  RETURN_IF_ERROR(choices_->SetPinned(volume, cookie, false));
  return catalogue_->DropObject(number, "an operator has removed it");
}

Status Culler::RemoveStray(ObjectNumber number) {
  MutexLock culling(&cull_mu_);
  return catalogue_->RemoveStray(number);
}

// No cull that has begun before is under way when it returns.
Status Culler::SetPinned(const std::string& volume, const std::string& cookie, bool pinned) {
  MutexLock culling(&cull_mu_);
  return choices_->SetPinned(volume, cookie, pinned);
}

ObjectUse Culler::UseOf(ObjectNumber number) {
  ObjectUse use;
  if (const Result<DataFile> file = data_.Find(number); file.ok()) {
    use = {file->allocated, file->used};
  }
  {
    MutexLock lock(&core_->mu);
    if (!core_->engine.notes_uses()) return use;
    if (const Object* object = core_->engine.Find(number); object != nullptr) {
      const auto age =
          std::chrono::duration_cast<std::chrono::seconds>(clock_.Now() - object->uses.Latest());
      use.used = WallSeconds() - std::min(WallSeconds(), static_cast<uint64_t>(age.count()));
      return use;
    }
  }
  uint32_t latest = 0;
  for (const UseRecord& record : store_->LoadUses(number)) {
    latest = std::max(latest, *std::max_element(record.seconds.begin(), record.seconds.end()));
  }
  if (latest > 0) use.used = latest;
  return use;
}

void Culler::KeepUses() {
  Transaction transaction(core_);
  for (const auto& [number, object] : core_->engine.objects()) {
    core_->engine.KeepUses(object.get(), transaction.effects());
  }
}

}  // namespace cachecore
