// The fields of the supervisor's status file, and the name of its lock: SuperviseStatus and
// LockRunDir make them, host/service and host/instance read them.
//
// See      host/supervisor/supervise_status.h for what each holds.

#ifndef HOST_SUPERVISOR_SUPERVISE_FIELDS_H_
#define HOST_SUPERVISOR_SUPERVISE_FIELDS_H_

namespace host {

// In the run directory; see LockRunDir.
inline constexpr char kRunDirLock[] = "supervise.lock";
inline constexpr char kNotifyDirectory[] = "notify";

}  // namespace host

namespace host::supervise_field {

// Of the supervisor, and of each service.
inline constexpr char kPid[] = "pid";
inline constexpr char kState[] = "state";
inline constexpr char kSinceMs[] = "since_ms";
// Of the supervisor.
inline constexpr char kStandby[] = "standby";
inline constexpr char kWhyNoStandby[] = "why_no_standby";
inline constexpr char kTakeovers[] = "takeovers";
// How often this program was told to let another one go on in its process, and did not; and why,
// the last time.
inline constexpr char kExchangesRefused[] = "exchanges_refused";
inline constexpr char kWhyNotExchanged[] = "why_not_exchanged";
inline constexpr char kVersion[] = "version";
inline constexpr char kServices[] = "services";
// Of earlier supervisors.
inline constexpr char kTakeoversBefore[] = "takeovers_before";
// Of each service.
inline constexpr char kName[] = "name";
inline constexpr char kSpare[] = "spare";
inline constexpr char kRestarts[] = "restarts";
// Of this supervisor and earlier ones: by reason, by bucket, and the sum in microseconds.
inline constexpr char kEnds[] = "ends";
inline constexpr char kPauses[] = "pauses";
inline constexpr char kPausesUs[] = "pauses_us";
inline constexpr char kRetryAtMs[] = "retry_at_ms";
inline constexpr char kLastExit[] = "last_exit";
inline constexpr char kStatus[] = "status";
inline constexpr char kFdStore[] = "fd_store";

}  // namespace host::supervise_field

#endif  // HOST_SUPERVISOR_SUPERVISE_FIELDS_H_
