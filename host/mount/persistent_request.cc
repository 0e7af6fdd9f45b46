#include "host/mount/persistent_request.h"

#include <algorithm>
#include <cerrno>

#include "host/instance/control_client.h"
#include "host/instance/supervisor_process.h"
#include "host/service/instance_control.h"

namespace host {
namespace {

using cachecore::Deadline;
using cachecore::Result;
using cachecore::StopSignalled;
using nlohmann::json;

// Between two tries.
constexpr std::chrono::milliseconds kFirstPause{50};
constexpr std::chrono::milliseconds kLongestPause{1000};
// The daemon keeps the time of an acquire itself; this much later we stop waiting for its answer.
constexpr std::chrono::milliseconds kAnswerGrace{2000};

}  // namespace

bool MayPass(int error) {
  switch (error) {
    case EAGAIN:
    case ECONNABORTED:
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOTCONN:
    case EPIPE:
    case ETIMEDOUT:
      return true;
    default:
      return false;
  }
}

Result<json> AskPersistently(const Instance& instance,
                             const std::function<json(std::chrono::milliseconds left)>& question,
                             const Deadline& deadline) {
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kLongestPause)) {
    const auto left = deadline.Remaining();
    bool answered = false;
    Result<json> answer = CallControl(instance.ControlSocket(), question(left),
                                      Deadline(left + kAnswerGrace), &answered);
    const bool may_pass = answered ? MayPass(answer.status().error())
                                   : SupervisorPid(instance) > 0 || IsRunElsewhere(instance);
    if (answer.ok() || !may_pass || StopSignalled() || left <= pause) return answer;
    cachecore::WaitUntil([] { return StopSignalled(); }, Deadline(pause)).IgnoreError("a pause");
  }
}

}  // namespace host
