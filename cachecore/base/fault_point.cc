#include "cachecore/base/fault_point.h"

#include <glog/logging.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>

namespace cachecore {
namespace {

enum class Action { kExit, kBlock, kError };

struct Point {
  const char* name;
  FaultProgram program;
};

constexpr Point kPoints[] = {
#define FAULT(enumerator, name, program) {name, FaultProgram::program},
#include "cachecore/base/fault_points.def"
#undef FAULT
};

// Written by ArmFaultPoint only, before `armed`.
size_t wanted = 0;
Action action = Action::kExit;
std::atomic<uint64_t> passes_left{0};

Status Parse(std::istream& in, const std::string& path) {
  std::string name, what;
  uint64_t nth = 0;
  in >> name >> nth >> what;
  wanted = 0;
  while (wanted < std::size(kPoints) && kPoints[wanted].name != name) ++wanted;
  if (!in || wanted == std::size(kPoints) || nth == 0) {
    return Status(EINVAL, path + " does not say NAME N exit|block|error with a known NAME");
  }
  if (what == "exit") {
    action = Action::kExit;
  } else if (what == "block") {
    action = Action::kBlock;
  } else if (what == "error") {
    action = Action::kError;
  } else {
    return Status(EINVAL, path + ": the action is exit, block or error, not \"" + what + "\"");
  }
  passes_left = nth;
  return Status();
}

}  // namespace

namespace fault_internal {

std::atomic<bool> armed{false};

Status Pass(Fault point) {
  if (static_cast<size_t>(point) != wanted || passes_left.load() == 0) return Status();
  if (passes_left.fetch_sub(1) != 1) return Status();
  const std::string name = kPoints[wanted].name;
  switch (action) {
    case Action::kExit:
      // Not by glog, whose lock a thread may hold: this is to be as sudden as a SIGKILL.
      _exit(99);
    case Action::kBlock:
      LOG(WARNING) << "fault point " << name << ": waiting for ever";
      while (true) pause();
    case Action::kError:
      break;
  }
  LOG(WARNING) << "fault point " << name << ": failing";
  return Status(EIO, "fault point " + name);
}

}  // namespace fault_internal

Status ArmFaultPoint(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Status();
  if (unlink(path.c_str()) != 0) return Status::FromErrno(errno, "removing " + path);
  RETURN_IF_ERROR(Parse(file, path));
  LOG(WARNING) << "fault point " << kPoints[wanted].name << " is armed";
  fault_internal::armed = true;
  return Status();
}

void ListFaultPoints(FaultProgram program, std::ostream& out) {
  for (const Point& point : kPoints) {
    if (point.program == program) out << point.name << '\n';
  }
}

}  // namespace cachecore
