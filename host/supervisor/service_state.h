// What a supervised service is doing; see host/supervisor/supervisor.h.

#ifndef HOST_SUPERVISOR_SERVICE_STATE_H_
#define HOST_SUPERVISOR_SERVICE_STATE_H_

namespace host {

// kTakingOver: a spare that has been told to, and has not been heard of.
enum class State {
  kWaiting,
  kTakingOver,
  kStarting,
  kReady,
  kStopping,
  kAborting,
  kKilled,
  kStopped
};

inline const char* StateName(State state) {
  switch (state) {
    case State::kWaiting:
      return "waiting";
    case State::kTakingOver:
    case State::kStarting:
      return "starting";
    case State::kReady:
      return "ready";
    case State::kStopping:
      return "stopping";
    case State::kAborting:
      return "aborting";
    case State::kKilled:
      return "killed";
    case State::kStopped:
      return "stopped";
  }
  return "";
}

}  // namespace host

#endif  // HOST_SUPERVISOR_SERVICE_STATE_H_
