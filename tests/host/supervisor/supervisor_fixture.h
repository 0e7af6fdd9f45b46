// SupervisorTest: a supervisor, and how it ends.

#ifndef TESTS_HOST_SUPERVISOR_SUPERVISOR_FIXTURE_H_
#define TESTS_HOST_SUPERVISOR_SUPERVISOR_FIXTURE_H_

#include <sys/wait.h>

#include "tests/host/supervisor/supervisor_harness.h"

namespace host {

class SupervisorTest : public SupervisorHarness {
 protected:
  void TellSupervisorToStop() {
    SignalSupervisor(SIGTERM);
    SupervisorExit end = WaitSupervisor();
    EXPECT_TRUE(WIFEXITED(end.wait_status)) << end.wait_status;
    EXPECT_EQ(WEXITSTATUS(end.wait_status), 0) << end.message;
  }
  SupervisorExit Refused(const SupervisorOptions& options) {
    StartSupervisor(options);
    SupervisorExit end = WaitSupervisor();
    EXPECT_TRUE(WIFEXITED(end.wait_status));
    EXPECT_EQ(WEXITSTATUS(end.wait_status), 100) << "it ran";
    return end;
  }
};

}  // namespace host

#endif  // TESTS_HOST_SUPERVISOR_SUPERVISOR_FIXTURE_H_
