#include "fusefs/inject/machine.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <iterator>

#include "fusefs/inject/injection_job.h"

#if defined(__x86_64__) || defined(__aarch64__)
extern "C" const char holdfast_code_window[];
extern "C" const char holdfast_code_maps[];
extern "C" const char holdfast_code_opens[];
extern "C" const char holdfast_code_end[];
#endif

namespace fusefs {

using cachecore::Result;
using cachecore::Status;

namespace {

[[maybe_unused]] constexpr uint64_t kMapFlags =
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

static_assert(offsetof(CodeData, fd_addresses) == 24 && offsetof(CodeData, length) == 56 &&
                  offsetof(CodeData, failed) == 64 && offsetof(CodeData, command) == 72 &&
                  offsetof(CodeData, device_fd) == 80 && offsetof(CodeData, opens_file) == 88 &&
                  offsetof(CodeData, saved) == 96 && sizeof(CodeData) == kCodeDataSize,
              "the code below has these numbers");

}  // namespace

Result<Registers> GetRegisters(pid_t thread) {
  if (!kKnowsMachine) {
    return Status(EOPNOTSUPP, "holdfast-injectd knows the registers of x86-64 and arm64 only");
  }
  Registers registers;
  iovec place = {&registers, sizeof(registers)};
  if (ptrace(PTRACE_GETREGSET, thread, NT_PRSTATUS, &place) != 0) {
    return Status::FromErrno(errno, "PTRACE_GETREGSET");
  }
  if (place.iov_len != sizeof(registers)) {
    return Status(EOPNOTSUPP, "a 32-bit program cannot read the cachefiles device");
  }
  return registers;
}

Status SetRegisters(pid_t thread, const Registers& registers) {
  Registers copy = registers;
  iovec place = {&copy, sizeof(copy)};
  if (ptrace(PTRACE_SETREGSET, thread, NT_PRSTATUS, &place) != 0) {
    return Status::FromErrno(errno, "PTRACE_SETREGSET");
  }
  return Status();
}

#if defined(__x86_64__) || defined(__aarch64__)

std::string_view InjectedCode() {
  return {holdfast_code_window, static_cast<size_t>(holdfast_code_end - holdfast_code_window)};
}

namespace {

uint64_t OffsetOf(CodeEntry entry) {
  const char* const begin = entry == CodeEntry::kWindow ? holdfast_code_window
                            : entry == CodeEntry::kMaps ? holdfast_code_maps
                                                        : holdfast_code_opens;
  return static_cast<uint64_t>(begin - holdfast_code_window);
}

}  // namespace

#endif

#if defined(__x86_64__)

// rsi: the data.  A system call keeps each register but rax, rcx and r11.
asm(R"(
  .pushsection .rodata
  .intel_syntax noprefix
holdfast_code_window:
  syscall                       # mmap, as below; it may fail
  mov rsi, r8
  mov rax, [rsi + 56]
  jmp 2f
holdfast_code_maps:
  syscall                       # mmap; r8, which it does not look at, is the data
  mov rsi, r8
  test rax, rax
  js 1f
holdfast_code_opens:
  mov rax, [rsi + 56]
  cmp qword ptr [rsi + 88], 0
  je 2f
  mov edi, [rsi + 80]
  mov edx, 1                    # O_WRONLY
  mov eax, 304                  # open_by_handle_at
  syscall
  test rax, rax
  js 1f
  mov rcx, [rsi + 24]
  mov [rcx], al
  shr eax, 8
  mov rcx, [rsi + 32]
  mov [rcx], al
  shr eax, 8
  mov rcx, [rsi + 40]
  mov [rcx], al
  shr eax, 8
  mov rcx, [rsi + 48]
  mov [rcx], al
  mov rax, [rsi + 56]
  jmp 2f
1:
  mov rdx, [rsi + 64]
  sub rdx, rax
  mov r8, rsi
  mov edi, [r8 + 80]
  mov rsi, [r8 + 72]
  mov eax, 16                   # ioctl
  syscall
  mov rsi, r8
  mov eax, edx
  neg rax
2:
  mov rcx, rsi
  mov rdi, [rcx + 96]
  mov rsi, [rcx + 104]
  mov rdx, [rcx + 112]
  mov r10, [rcx + 120]
  mov r8, [rcx + 128]
  mov r9, [rcx + 136]
  jmp qword ptr [rcx + 144]
holdfast_code_end:
  .att_syntax prefix
  .popsection
)");
static_assert(SYS_open_by_handle_at == 304 && SYS_ioctl == 16 && O_WRONLY == 1);

int64_t ResultOf(const Registers& registers) { return static_cast<int64_t>(registers.rax); }

void SetResult(int64_t result, Registers* registers) {
  registers->rax = static_cast<uint64_t>(result);
  registers->orig_rax = UINT64_MAX;  // No system call is to be restarted.
}

void Save(const Registers& registers, CodeData* data) {
  const uint64_t saved[] = {registers.rdi, registers.rsi, registers.rdx, registers.r10,
                            registers.r8,  registers.r9,  registers.rip};
  static_assert(sizeof(saved) == sizeof(data->saved));
  std::copy(std::begin(saved), std::end(saved), data->saved);
}

Registers AtCode(uint64_t code, uint64_t data, CodeEntry entry, Registers registers) {
  SetResult(SYS_mmap, &registers);
  registers.rip = code + OffsetOf(entry);
  registers.rdi = kIdWindow;
  registers.rsi = kIdWindowSize + kCodeDataRoom;
  registers.rdx = PROT_READ;
  registers.r10 = kMapFlags;
  registers.r8 = data;
  registers.r9 = 0;
  if (entry == CodeEntry::kOpens) registers.rsi = data;
  return registers;
}

#elif defined(__aarch64__)

// x1: the data.  A system call keeps each register but x0.  x17 is free wherever a linker may put a
// veneer, which is where compilers make system calls.
asm(R"(
  .pushsection .rodata
  .balign 8
holdfast_code_window:
  svc #0                        // mmap, as below; it may fail
  mov x1, x4
  ldr x0, [x1, #56]
  b 2f
holdfast_code_maps:
  svc #0                        // mmap; x4, which it does not look at, is the data
  mov x1, x4
  tbnz x0, #63, 1f
holdfast_code_opens:
  ldr x0, [x1, #56]
  ldr x2, [x1, #88]
  cbz x2, 2f
  ldr x0, [x1, #80]
  mov x2, #1                    // O_WRONLY
  mov x8, #265                  // open_by_handle_at
  svc #0
  tbnz x0, #63, 1f
  ldr x2, [x1, #24]
  strb w0, [x2]
  lsr w0, w0, #8
  ldr x2, [x1, #32]
  strb w0, [x2]
  lsr w0, w0, #8
  ldr x2, [x1, #40]
  strb w0, [x2]
  lsr w0, w0, #8
  ldr x2, [x1, #48]
  strb w0, [x2]
  ldr x0, [x1, #56]
  b 2f
1:
  ldr x2, [x1, #64]
  sub x2, x2, x0
  mov x3, x0
  mov x4, x1
  ldr x1, [x4, #72]
  ldr x0, [x4, #80]
  mov x8, #29                   // ioctl
  svc #0
  mov x0, x3
  mov x1, x4
2:
  mov x17, x1
  ldr x1, [x17, #96]
  ldr x2, [x17, #104]
  ldr x3, [x17, #112]
  ldr x4, [x17, #120]
  ldr x5, [x17, #128]
  ldr x8, [x17, #136]
  ldr x17, [x17, #144]
  ret x17                       // Which BTI does not look at.
holdfast_code_end:
  .popsection
)");
static_assert(SYS_open_by_handle_at == 265 && SYS_ioctl == 29 && O_WRONLY == 1);

int64_t ResultOf(const Registers& registers) { return static_cast<int64_t>(registers.regs[0]); }

void SetResult(int64_t result, Registers* registers) {
  registers->regs[0] = static_cast<uint64_t>(result);
}

void Save(const Registers& registers, CodeData* data) {
  const uint64_t saved[] = {registers.regs[1], registers.regs[2], registers.regs[3],
                            registers.regs[4], registers.regs[5], registers.regs[8],
                            registers.pc};
  static_assert(sizeof(saved) == sizeof(data->saved));
  std::copy(std::begin(saved), std::end(saved), data->saved);
}

Registers AtCode(uint64_t code, uint64_t data, CodeEntry entry, Registers registers) {
  registers.pc = code + OffsetOf(entry);
  const uint64_t arguments[] = {
      kIdWindow, kIdWindowSize + kCodeDataRoom, PROT_READ, kMapFlags, data, 0};
  std::copy(std::begin(arguments), std::end(arguments), registers.regs);
  registers.regs[8] = SYS_mmap;
  if (entry == CodeEntry::kOpens) registers.regs[1] = data;
  return registers;
}

#else

int64_t ResultOf(const Registers&) { return 0; }
void SetResult(int64_t, Registers*) {}
std::string_view InjectedCode() { return ""; }
void Save(const Registers&, CodeData*) {}
Registers AtCode(uint64_t, uint64_t, CodeEntry, Registers registers) { return registers; }

#endif

}  // namespace fusefs
