#include "fusefs/inject/injection.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cachecore/base/fault_point.h"
#include "cachecore/base/status.h"
#include "cachecore/base/unique_fd.h"
#include "fusefs/cachefiles/preload/device_calls.h"
#include "fusefs/inject/machine.h"
#include "fusefs/inject/proc_files.h"

namespace fusefs {

using cachecore::Fault;
using cachecore::FaultPoint;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr size_t kMaxParts = 64;  // Of a readv that are looked at.
constexpr uint64_t kAlignment = 16;
constexpr uint64_t kFdOffset = sizeof(cachefiles_msg) + offsetof(cachefiles_open, fd);

// The thread is not where the message could be given to it.
Status Missed() { return Status(ESRCH, "the thread is not in its read"); }

// Gone, or a zombie.
bool HasEnded(pid_t thread) {
  const std::string state = StatusWord(thread, "State:");
  return state.empty() || state == "Z" || state == "X";
}

// A thread that this one traces.
class Tracee {
 public:
  Tracee(pid_t thread, const AwaitChange& await_change)
      : thread_(thread), await_change_(await_change) {}
  ~Tracee() {
    if (!is_traced_) return;
    // A thread that was killed while it was traced has to be waited for, or an execve(2) of another
    // thread of its process waits for ever.
    if (ptrace(PTRACE_DETACH, thread_, 0, 0) != 0 && AwaitStop().ok()) {
      (void)ptrace(PTRACE_DETACH, thread_, 0, 0);
    }
  }
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;

  Status Seize();
  // Until it stands before an instruction of its program.
  Status AwaitStop();

 private:
  const pid_t thread_;
  const AwaitChange& await_change_;
  bool is_traced_ = false;
};

Status Tracee::Seize() {
  if (!IsInOurUserNamespace(thread_)) {
    if (access(ProcPath(thread_, "").c_str(), F_OK) != 0) return Missed();
    return Status(EPERM, "it is in another user namespace");
  }
  // Without PTRACE_O_EXITKILL: the reader outlives us.
  if (ptrace(PTRACE_SEIZE, thread_, 0, 0) != 0) {
    const int error = errno;
    const pid_t tracer = TracerOf(thread_);
    if (error == ESRCH || HasEnded(thread_)) return Missed();
    // One that is about to die with its holdfastd.
    if (tracer != 0 && StatusWord(tracer, "Name:") == StatusWord(getpid(), "Name:")) {
      return Missed();
    }
    if (tracer == 0) return Status::FromErrno(error, "it may not be traced");
    return Status(EPERM, "it is traced by process " + std::to_string(tracer) +
                             "; holdfast cachefiles-run starts programs that can be traced");
  }
  is_traced_ = true;
  if (ptrace(PTRACE_INTERRUPT, thread_, 0, 0) != 0) return Missed();
  FaultPoint(Fault::kInjectSeized);
  return AwaitStop();
}

Status Tracee::AwaitStop() {
  while (true) {
    int state = 0;
    const pid_t got = waitpid(thread_, &state, __WALL | WNOHANG);
    if (got == 0) {
      await_change_();
      continue;
    }
    if (got < 0 || !WIFSTOPPED(state)) {
      is_traced_ = false;
      return Missed();
    }
    if (state >> 16 == PTRACE_EVENT_STOP) return Status();
    // A signal came first: its handler would run before the stop, and the registers would be the
    // handler's.  The next read of the device gets the message.
    (void)ptrace(PTRACE_DETACH, thread_, 0, WSTOPSIG(state));
    is_traced_ = false;
    return Missed();
  }
}

// The system call that a stopped thread has made.
struct Call {
  long number = -1;
  std::array<uint64_t, 3> arguments = {};
};

Call CallOf(pid_t thread) {
  std::ifstream file(ProcPath(thread, "syscall"));
  Call call;
  if (!(file >> std::dec >> call.number)) return Call();
  for (uint64_t& argument : call.arguments) {
    std::string text;
    if (!(file >> text) || std::sscanf(text.c_str(), "%lx", &argument) != 1) return Call();
  }
  return call;
}

// Where the bytes of a read go, `length` at most.  Empty: it is no read of the device, or too short.
std::vector<iovec> BufferOf(const InjectionJob& job, const Call& call) {
  struct stat file;
  const auto fd = static_cast<uint32_t>(call.arguments[0]);
  if (stat(ProcPath(job.thread, "fd/" + std::to_string(fd)).c_str(), &file) != 0 ||
      file.st_ino != kDeviceInode || file.st_dev != job.device) {
    return {};
  }
  std::vector<iovec> parts(1);
  if (call.number == SYS_read || call.number == SYS_pread64) {
    parts[0] = {reinterpret_cast<void*>(call.arguments[1]), call.arguments[2]};
  } else if (call.number == SYS_readv || call.number == SYS_preadv || call.number == SYS_preadv2) {
    parts.resize(std::min<uint64_t>(call.arguments[2], kMaxParts));
    const iovec here = {parts.data(), parts.size() * sizeof(iovec)};
    const iovec there = {reinterpret_cast<void*>(call.arguments[1]), here.iov_len};
    if (process_vm_readv(job.thread, &here, 1, &there, 1, 0) !=
        static_cast<ssize_t>(here.iov_len)) {
      return {};
    }
  } else {
    return {};
  }
  size_t left = job.length;
  for (iovec& part : parts) {
    part.iov_len = std::min(part.iov_len, left);
    left -= part.iov_len;
  }
  return left == 0 ? parts : std::vector<iovec>();
}

// The address of the byte at `offset`, which is in one of the parts.
uint64_t AddressIn(const std::vector<iovec>& parts, uint64_t offset) {
  for (const iovec& part : parts) {
    if (offset < part.iov_len) return reinterpret_cast<uint64_t>(part.iov_base) + offset;
    offset -= part.iov_len;
  }
  return 0;
}

// Where things can be put that nothing else uses: behind the image of the vdso, to the end of its
// last page.  The page becomes the process's own when it is written to.
Result<MemoryRange> FindRoom(pid_t thread, int memory) {
  const Status none(EOPNOTSUPP, "its vdso has no room for a few instructions");
  const std::optional<MemoryRange> vdso = FindVdso(thread);
  Elf64_Ehdr header;
  if (!vdso ||
      pread(memory, &header, sizeof(header), static_cast<off_t>(vdso->begin)) != sizeof(header)) {
    return none;
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  const size_t size = segments.size() * sizeof(Elf64_Phdr);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_phentsize != sizeof(Elf64_Phdr) ||
      pread(memory, segments.data(), size, static_cast<off_t>(vdso->begin + header.e_phoff)) !=
          static_cast<ssize_t>(size)) {
    return none;
  }
  uint64_t used = header.e_shoff + uint64_t{header.e_shnum} * header.e_shentsize;
  for (const Elf64_Phdr& segment : segments) {
    used = std::max(used, segment.p_offset + segment.p_memsz);
  }
  const MemoryRange room = {(vdso->begin + used + kAlignment - 1) / kAlignment * kAlignment,
                            vdso->end};
  const uint64_t needed = InjectedCode().size() + kAlignment + kCodeDataSize;
  if (room.begin + needed > room.end) return none;
  return room;
}

Status WriteMemory(int memory, std::string_view bytes, uint64_t address) {
  const ssize_t written = pwrite(memory, bytes.data(), bytes.size(), static_cast<off_t>(address));
  if (written == static_cast<ssize_t>(bytes.size())) return Status();
  return Status::FromErrno(errno, "writing to its memory");
}

enum class Window { kFree, kOurs, kTaken };

// What is at the addresses of ids and of the data behind them.  Ours is one anonymous mapping, which is
// readable only and begins with the window.
Window WindowOf(pid_t thread) {
  constexpr uint64_t kEnd = kIdWindow + kIdWindowSize + kCodeDataRoom;
  std::ifstream maps(ProcPath(thread, "maps"));
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0;
    uint64_t end = 0;
    char rights[8] = "";
    uint64_t inode = 0;
    char name[2] = "";
    if (std::sscanf(line.c_str(), "%lx-%lx %7s %*s %*s %lu %1s", &begin, &end, rights, &inode,
                    name) < 4 ||
        end <= kIdWindow || begin >= kEnd) {
      continue;
    }
    const bool is_ours = begin == kIdWindow && end >= kEnd && std::string(rights) == "r--p" &&
                         inode == 0 && name[0] == '\0';
    return is_ours ? Window::kOurs : Window::kTaken;
  }
  return Window::kFree;
}

// The code, which stays; puts it there if need be.
Status PutCode(int memory, uint64_t address) {
  std::string there(InjectedCode().size(), 0);
  const ssize_t got = pread(memory, there.data(), there.size(), static_cast<off_t>(address));
  if (got == static_cast<ssize_t>(there.size()) && there == InjectedCode()) return Status();
  return WriteMemory(memory, InjectedCode(), address);
}

// Where the data of one injection is.  The thread of an earlier one may still be at its own: there
// are many places in the window; a thread that is to map it is the only one of its process.
Result<uint64_t> FindDataPlace(const InjectionJob& job, const MemoryRange& room, bool maps) {
  uint64_t first = kIdWindow + kIdWindowSize;
  uint64_t end = first + kCodeDataRoom;
  if (maps) {
    static std::pair<std::string, std::chrono::steady_clock::time_point> last;
    const auto now = std::chrono::steady_clock::now();
    const std::string process = StatusWord(job.thread, "Tgid:");
    if (process == last.first && now - last.second < std::chrono::seconds(1)) return Missed();
    last = {process, now};
    first = (room.begin + InjectedCode().size() + kAlignment - 1) / kAlignment * kAlignment;
    end = room.end;
  }
  const uint64_t places = (end - first) / kCodeDataSize;
  return first + job.serial % places * kCodeDataSize;
}

bool IsForWrite(const InjectionJob& job) { return job.length == 0; }

CodeData DataOf(const InjectionJob& job, const std::vector<iovec>& parts,
                const Registers& registers, uint32_t device_fd) {
  CodeData data;
  // A write keeps its result.
  data.length = IsForWrite(job) ? static_cast<uint64_t>(ResultOf(registers)) : job.length;
  data.failed = uint64_t{job.msg_id} << 32;
  data.device_fd = device_fd;
  data.opens_file = job.node != 0;
  data.handle.node_high = static_cast<uint32_t>(job.node >> 32);
  data.handle.node_low = static_cast<uint32_t>(job.node);
  for (size_t i = 0; job.node != 0 && i < std::size(data.fd_addresses); ++i) {
    data.fd_addresses[i] = AddressIn(parts, kFdOffset + i);
  }
  Save(registers, &data);
  return data;
}

// The thread has ended a read of the device with 0 bytes: makes it one that gives the message.  Or
// it has ended a write, in which its process gets the window.
Status GiveMessage(const InjectionJob& job, const std::vector<iovec>& parts,
                   const Registers& registers, uint32_t device_fd) {
  const UniqueFd memory(open(ProcPath(job.thread, "mem").c_str(), O_RDWR | O_CLOEXEC));
  if (!memory.valid()) return Status::FromErrno(errno, "opening its memory");
  ASSIGN_OR_RETURN(const MemoryRange room, FindRoom(job.thread, memory.get()));
  const Window window = WindowOf(job.thread);
  if (window == Window::kTaken) {
    return Status(EOPNOTSUPP,
                  "it has memory of its own at 0x60000000, where ids of messages are mapped; "
                  "holdfast cachefiles-run starts a dynamic program that needs no ids there");
  }
  const bool maps = window == Window::kFree;
  if (IsForWrite(job) && !maps) return Status();
  ASSIGN_OR_RETURN(const uint64_t place, FindDataPlace(job, room, maps));
  // As the kernel's copy would: not into memory that it may not write to.
  const iovec message = {const_cast<char*>(job.message), job.length};
  if (process_vm_writev(job.thread, &message, 1, parts.data(), parts.size(), 0) !=
      static_cast<ssize_t>(job.length)) {
    return Status(EFAULT, "its buffer cannot be written to");
  }
  RETURN_IF_ERROR(PutCode(memory.get(), room.begin));
  const CodeData data = DataOf(job, parts, registers, device_fd);
  const std::string_view bytes(reinterpret_cast<const char*>(&data), sizeof(data));
  RETURN_IF_ERROR(WriteMemory(memory.get(), bytes, place));
  FaultPoint(Fault::kInjectWritten);
  const CodeEntry entry = IsForWrite(job) ? CodeEntry::kWindow
                          : maps          ? CodeEntry::kMaps
                                          : CodeEntry::kOpens;
  RETURN_IF_ERROR(SetRegisters(job.thread, AtCode(room.begin, place, entry, registers)));
  FaultPoint(Fault::kInjectStarted);
  return Status();
}

Status InjectInto(const InjectionJob& job, Tracee* tracee) {
  RETURN_IF_ERROR(tracee->Seize());
  FaultPoint(Fault::kInjectStopped);
  ASSIGN_OR_RETURN(Registers registers, GetRegisters(job.thread));
  const Call call = CallOf(job.thread);
  if (IsForWrite(job)) {
    if (call.number < 0 || ResultOf(registers) <= 0) return Missed();
    return GiveMessage(job, {}, registers, 0);
  }
  const std::vector<iovec> parts = BufferOf(job, call);
  if (parts.empty() || ResultOf(registers) != 0) return Missed();
  const Status given = GiveMessage(job, parts, registers, static_cast<uint32_t>(call.arguments[0]));
  if (given.ok() || given.error() == ESRCH) return given;
  SetResult(-given.error(), &registers);
  const Status told = SetRegisters(job.thread, registers);
  return told.ok() ? given : told;
}

}  // namespace

void Inject(const InjectionJob& job, const AwaitChange& await_change,
            const std::function<void(const InjectionReport&)>& tell) {
  Tracee tracee(job.thread, await_change);
  InjectionReport report;
  report.serial = job.serial;
  const Status status = InjectInto(job, &tracee);
  if (status.ok()) {
    report.end = InjectionEnd::kStarted;
  } else if (status.error() != ESRCH) {
    report.end = InjectionEnd::kRefused;
    report.error = status.error();
    status.message().copy(report.cause, sizeof(report.cause) - 1);
  }
  tell(report);
}

}  // namespace fusefs
