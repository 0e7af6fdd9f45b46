// GonePid: the pid of a process that has ended, as a killed reader has.

#ifndef TESTS_FUSEFS_SERVER_GONE_PID_H_
#define TESTS_FUSEFS_SERVER_GONE_PID_H_

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace fusefs {

inline pid_t GonePid() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  return child;
}

}  // namespace fusefs

#endif  // TESTS_FUSEFS_SERVER_GONE_PID_H_
