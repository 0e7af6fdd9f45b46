#include "host/instance/systemd_unit.h"

#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "cachecore/base/deadline.h"
#include "cachecore/base/status.h"
#include "cachecore/system/bounded_call.h"

namespace host {
namespace {

using cachecore::CallInChild;
using cachecore::Deadline;
using cachecore::Result;
using cachecore::Status;
using Bus = std::unique_ptr<sd_bus, sd_bus* (*)(sd_bus*)>;
using Text = std::unique_ptr<char, void (*)(void*)>;

constexpr std::chrono::milliseconds kManagerTimeout{5000};
// The manager's own socket, for root: it answers where there is no D-Bus daemon, too.
constexpr char kPrivateAddress[] = "unix:path=/run/systemd/private";
constexpr char kManager[] = "org.freedesktop.systemd1";

Result<Bus> ConnectPrivately() {
  sd_bus* bus = nullptr;
  if (const int made = sd_bus_new(&bus); made < 0) return Status::FromErrno(-made, "sd_bus_new");
  Bus owned(bus, sd_bus_close_unref);
  int done = sd_bus_set_address(bus, kPrivateAddress);
  if (done >= 0) done = sd_bus_start(bus);
  if (done < 0) return Status::FromErrno(-done, kPrivateAddress);
  return owned;
}

Result<Bus> Connect() {
  if (geteuid() == 0) {
    Result<Bus> bus = ConnectPrivately();
    if (bus.ok()) return bus;
  }
  sd_bus* bus = nullptr;
  const int opened = sd_bus_open_system(&bus);
  if (opened < 0) return Status::FromErrno(-opened, "the system bus");
  return Bus(bus, sd_bus_close_unref);
}

Result<std::string> ActiveState(const std::string& unit) {
  ASSIGN_OR_RETURN(const Bus bus, Connect());
  char* encoded = nullptr;
  const int named = sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit.c_str(), &encoded);
  if (named < 0) return Status::FromErrno(-named, unit);
  const Text path(encoded, std::free);
  char* value = nullptr;
  const int got =
      sd_bus_get_property_string(bus.get(), kManager, path.get(), "org.freedesktop.systemd1.Unit",
                                 "ActiveState", nullptr, &value);
  if (got < 0) return Status::FromErrno(-got, unit);
  const Text state(value, std::free);
  return std::string(state.get());
}

}  // namespace

std::string DaemonUnit(const Instance& instance) {
  return "holdfastd@" + instance.name() + ".service";
}

bool SystemdRuns(const Instance& instance) {
  // Units know no other root; and see sd_booted(3).
  if (!instance.root().empty() || access("/run/systemd/system", F_OK) != 0) return false;
  const std::string unit = DaemonUnit(instance);
  // In a child, since the library's waits cannot be given a deadline.
  const Result<std::string> state =
      CallInChild([&unit] { return ActiveState(unit); }, Deadline(kManagerTimeout));
  return state.ok() && *state != "inactive" && *state != "failed";
}

void SayReady(const std::string& status) {
  sd_notify(/*unset_environment=*/0, ("READY=1\nSTATUS=" + status).c_str());
}

}  // namespace host
