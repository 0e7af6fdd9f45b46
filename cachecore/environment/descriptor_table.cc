#include "cachecore/environment/descriptor_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

extern "C" {  // glibc 2.36's header lacks it.
#include <sys/pidfd.h>
}

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

namespace cachecore {
namespace {

constexpr char kName[] = "holdfast-descriptors";
constexpr char kMagic[] = "holdfast-fds-1";
constexpr size_t kNameBytesMax = 255;
// What no process can change of the file of another one while it is read.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A copy of the process's descriptor `number`.
UniqueFd CopyOf(const UniqueFd& pidfd, int number) {
  return UniqueFd(pidfd_getfd(pidfd.get(), number, 0));
}

bool IsTable(const std::filesystem::path& path, std::error_code* error) {
  return std::filesystem::read_symlink(path, *error) ==
         std::string("/memfd:") + kName + " (deleted)";
}

// The process's table.
Result<UniqueFd> FindTable(pid_t process, const UniqueFd& pidfd) {
  const std::string who = "process " + std::to_string(process);
  std::error_code error;
  std::filesystem::directory_iterator entry("/proc/" + std::to_string(process) + "/fd", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    std::error_code unread;
    const bool is_table = IsTable(entry->path(), &unread);
    // Root may list the descriptors of another user's process, and not see what they are.
    if (unread == std::errc::permission_denied) {
      error = unread;
      break;
    }
    if (!is_table) continue;
    const std::string number = entry->path().filename();
    UniqueFd fd = CopyOf(pidfd, std::atoi(number.c_str()));
    if (!fd.valid()) {
      return Status::FromErrno(errno, "copy descriptor " + number + " of " + who +
                                          ", which needs the capability CAP_SYS_PTRACE");
    }
    if ((fcntl(fd.get(), F_GET_SEALS) & kSeals) == kSeals) return fd;
  }
  if (error == std::errc::permission_denied) {
    return Status(error.value(),
                  "list the descriptors of " + who +
                      ", which needs the capability CAP_SYS_PTRACE: " + error.message());
  }
  if (error)
    return Status(error.value(), "list the descriptors of " + who + ": " + error.message());
  return Status(ENOENT, who + " lists no descriptors");
}

}  // namespace

// Shared with other versions of the programs, as kMagic says.
struct DescriptorTable::Layout {
  struct Entry {
    std::atomic<uint32_t> changes;  // Odd: one is being made.
    int32_t fd;                     // 0: the entry is free.
    uint32_t is_polled;
    uint32_t name_bytes;
    char name[kNameBytesMax + 1];

    template <typename Change>
    void Set(const Change& change) {
      changes.fetch_add(1, std::memory_order_seq_cst);
      change();
      changes.fetch_add(1, std::memory_order_seq_cst);
    }
    std::string_view Name() const { return {name, std::min<size_t>(name_bytes, kNameBytesMax)}; }
  };

  char magic[16];
  std::atomic<uint32_t> is_ready;
  uint32_t unused;
  Entry entries[kEntriesMax];
};

Result<std::unique_ptr<DescriptorTable>> DescriptorTable::Create(
    const std::vector<Stored>& stored) {
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  UniqueFd memory(memfd_create(kName, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid() || ftruncate(memory.get(), sizeof(Layout)) != 0) {
    return Status::FromErrno(errno, "make the table of stored descriptors");
  }
  void* const shared =
      mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (shared == MAP_FAILED) return Status::FromErrno(errno, "map the table of stored descriptors");
  auto* const layout = static_cast<Layout*>(shared);
  std::copy(std::begin(kMagic), std::end(kMagic), layout->magic);
  std::unique_ptr<DescriptorTable> table(new DescriptorTable(std::move(memory), layout));
  for (const Stored& one : stored) RETURN_IF_ERROR(table->Put(one));
  // Last: what is not sealed is no table yet.
  if (fcntl(table->memory_.get(), F_ADD_SEALS, kSeals) != 0) {
    return Status::FromErrno(errno, "seal the table of stored descriptors");
  }
  return table;
}

DescriptorTable::~DescriptorTable() { munmap(layout_, sizeof(Layout)); }

Status DescriptorTable::Put(const Stored& stored) {
  const MutexLock lock(&mu_);
  auto* const entry = std::find_if(std::begin(layout_->entries), std::end(layout_->entries),
                                   [](const Layout::Entry& one) { return one.fd == 0; });
  if (entry == std::end(layout_->entries) || stored.name.size() > kNameBytesMax) {
    return Status(ENOSPC, "there is no room for descriptor '" + stored.name + "'");
  }
  UniqueFd copy(fcntl(stored.fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return Status::FromErrno(errno, "copy descriptor '" + stored.name + "'");
  entry->Set([&] {
    entry->fd = copy.get();
    entry->is_polled = stored.is_polled ? 1 : 0;
    entry->name_bytes = static_cast<uint32_t>(stored.name.size());
    std::copy(stored.name.begin(), stored.name.end(), entry->name);
  });
  copies_[static_cast<size_t>(entry - layout_->entries)] = std::move(copy);
  return Status();
}

void DescriptorTable::Remove(std::string_view name) {
  const MutexLock lock(&mu_);
  for (size_t i = 0; i < kEntriesMax; ++i) {
    Layout::Entry& entry = layout_->entries[i];
    if (entry.fd == 0 || entry.Name() != name) continue;
    // Before the number can be another file's.
    entry.Set([&] { entry.fd = 0; });
    copies_[i].Reset();
  }
}

void DescriptorTable::SetReady() { layout_->is_ready.store(1, std::memory_order_seq_cst); }

Result<DescriptorTable::Copies> DescriptorTable::CopyFrom(pid_t process, const UniqueFd& pidfd) {
  ASSIGN_OR_RETURN(const UniqueFd memory, FindTable(process, pidfd));
  // Read, not mapped: the process writes to it, and need not be trusted.
  const auto before = std::make_unique<Layout>();
  const auto now = std::make_unique<Layout::Entry>();
  if (pread(memory.get(), before.get(), sizeof(Layout), 0) != sizeof(Layout) ||
      std::memcmp(before->magic, kMagic, sizeof kMagic) != 0) {
    return Status(ENOENT, "process " + std::to_string(process) +
                              " lists its descriptors in a way that this version does not know");
  }
  Copies copies;
  copies.is_ready = before->is_ready.load() != 0;
  for (const Layout::Entry& entry : before->entries) {
    if (entry.fd == 0 || entry.changes.load() % 2 != 0) continue;
    UniqueFd fd = CopyOf(pidfd, entry.fd);
    const int error = errno;
    const auto offset =
        reinterpret_cast<const char*>(&entry) - reinterpret_cast<char*>(before.get());
    if (pread(memory.get(), now.get(), sizeof(Layout::Entry), offset) != sizeof(Layout::Entry) ||
        now->changes.load() != entry.changes.load()) {
      continue;
    }
    if (!fd.valid()) {
      return Status(error, "copy descriptor '" + std::string(entry.Name()) + "' of process " +
                               std::to_string(process) + ": " + std::strerror(error));
    }
    copies.copies.push_back({std::string(entry.Name()), std::move(fd), entry.is_polled != 0});
  }
  return copies;
}

}  // namespace cachecore
