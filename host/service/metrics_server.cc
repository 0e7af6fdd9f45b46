#include "host/service/metrics_server.h"

#include <microhttpd.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace host {

using cachecore::Clock;
using cachecore::Duration;
using cachecore::MutexLock;
using cachecore::Result;
using cachecore::Status;
using cachecore::UniqueFd;

namespace {

constexpr Duration kSameFor = std::chrono::milliseconds(200);
constexpr unsigned kPatienceSeconds = 10;
constexpr unsigned kMaxClients = 16;
constexpr size_t kMaxRequestBytes = 16 << 10;
constexpr char kTextType[] = "text/plain; version=0.0.4; charset=utf-8";

MHD_Result OnRequest(void* server, MHD_Connection* connection, const char* path, const char* method,
                     const char*, const char*, size_t*, void**) {
  return static_cast<MHD_Result>(
      static_cast<MetricsServer*>(server)->Answer(connection, path, method));
}

void OnConnection(void* server, MHD_Connection* connection, void**,
                  MHD_ConnectionNotificationCode code) {
  auto* const self = static_cast<MetricsServer*>(server);
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) return self->Closed(connection);
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info != nullptr) self->Opened(connection, info->connect_fd);
}

}  // namespace

std::string MetricsSource::Text() {
  MutexLock lock(&text_mu_);
  if (Clock::Monotonic().Now() - made_ >= kSameFor) {
    text_ = gather_();
    made_ = Clock::Monotonic().Now();
  }
  return text_;
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::Start(UniqueFd listener,
                                                            MetricsSource* source) {
  std::unique_ptr<MetricsServer> server(new MetricsServer(source));
  server->daemon_ =
      MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, /*port=*/0, nullptr, nullptr,
                       &OnRequest, server.get(), MHD_OPTION_LISTEN_SOCKET, listener.get(),
                       MHD_OPTION_CONNECTION_LIMIT, kMaxClients, MHD_OPTION_CONNECTION_TIMEOUT,
                       kPatienceSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, kMaxRequestBytes,
                       MHD_OPTION_NOTIFY_CONNECTION, &OnConnection, server.get(), MHD_OPTION_END);
  if (server->daemon_ == nullptr) return Status(EIO, "the server of metrics could not be started");
  (void)listener.Release();  // Its daemon closes it.
  return server;
}

MetricsServer::~MetricsServer() {
  if (daemon_ != nullptr) MHD_stop_daemon(daemon_);
}

int MetricsServer::Answer(MHD_Connection* connection, const std::string& path,
                          const std::string& method) {
  unsigned status = MHD_HTTP_OK;
  std::string text;
  if (method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD) {
    status = MHD_HTTP_METHOD_NOT_ALLOWED;
    text = "only GET is answered\n";
  } else if (path != "/metrics") {
    status = MHD_HTTP_NOT_FOUND;
    text = "the metrics are at /metrics\n";
  } else {
    text = source_->Text();
  }
  MHD_Response* const response =
      MHD_create_response_from_buffer(text.size(), text.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, kTextType);
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  const MHD_Result queued = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

void MetricsServer::Opened(MHD_Connection* connection, int socket) {
  MutexLock lock(&mu_);
  clients_[connection] = {socket, Clock::Monotonic().Now()};
}

void MetricsServer::Closed(MHD_Connection* connection) {
  MutexLock lock(&mu_);
  clients_.erase(connection);
}

// libmicrohttpd's own limit begins again with each byte.  A socket is closed after Closed only, so
// that its number is still that of the connection here.
void MetricsServer::EndOverdue() {
  MutexLock lock(&mu_);
  const Duration now = Clock::Monotonic().Now();
  for (const auto& [connection, client] : clients_) {
    if (now - client.since > std::chrono::seconds(kPatienceSeconds)) {
      shutdown(client.socket, SHUT_RDWR);
    }
  }
}

}  // namespace host
