#include "tests/host/supervisor/counting_new.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

namespace {

std::atomic<uint64_t>* counter = nullptr;
bool counting = false;

}  // namespace

void* operator new(size_t size) {
  if (counting) counter->fetch_add(1);
  void* memory = malloc(size > 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }

namespace host {

void ResetAllocationCount() {
  if (counter == nullptr) {
    void* page =
        mmap(nullptr, sizeof(*counter), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) abort();
    counter = new (page) std::atomic<uint64_t>;
  }
  counter->store(0);
}

void CountAllocationsHere(bool on) { counting = on; }

uint64_t AllocationCount() { return counter->load(); }

}  // namespace host
