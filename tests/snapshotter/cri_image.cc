// cri_image SOCKET pull|remove REFERENCE: asks containerd's CRI plugin, as a kubelet does.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <string>

#include "cri_image.grpc.pb.h"

namespace {

constexpr std::chrono::seconds kTimeout{60};

grpc::Status Ask(runtime::v1::ImageService::Stub* service, const std::string& verb,
                 const std::string& reference) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeout);
  if (verb == "pull") {
    runtime::v1::PullImageRequest request;
    runtime::v1::PullImageResponse response;
    request.mutable_image()->set_image(reference);
    const grpc::Status status = service->PullImage(&context, request, &response);
    if (status.ok()) std::printf("%s\n", response.image_ref().c_str());
    return status;
  }
  runtime::v1::RemoveImageRequest request;
  runtime::v1::RemoveImageResponse response;
  request.mutable_image()->set_image(reference);
  return service->RemoveImage(&context, request, &response);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc == 4 ? argv[2] : "";
  if (verb != "pull" && verb != "remove") {
    std::fprintf(stderr, "cri_image SOCKET pull|remove REFERENCE\n");
    return 2;
  }
  const auto channel =
      grpc::CreateChannel(std::string("unix:") + argv[1], grpc::InsecureChannelCredentials());
  const auto service = runtime::v1::ImageService::NewStub(channel);
  const grpc::Status status = Ask(service.get(), verb, argv[3]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "cri_image: %d: %s\n", static_cast<int>(status.error_code()),
               status.error_message().c_str());
  return 1;
}
