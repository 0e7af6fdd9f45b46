#include "cachecore/verity/multi_hasher.h"

#ifdef HOLDFAST_HAS_IPSEC_MB

#include <intel-ipsec-mb.h>

namespace cachecore {

std::unique_ptr<MultiHasher> MultiHasher::Make() {
  IMB_MGR* const manager = alloc_mb_mgr(0);
  if (manager == nullptr) return nullptr;
  IMB_ARCH found = IMB_ARCH_NONE;
  init_mb_mgr_auto(manager, &found);
  std::unique_ptr<MultiHasher> made(new MultiHasher(manager));
  if (found == IMB_ARCH_NONE || imb_get_errno(manager) != 0) return nullptr;
  return made;
}

MultiHasher::~MultiHasher() { free_mb_mgr(static_cast<IMB_MGR*>(manager_)); }

bool MultiHasher::Hash(const uint8_t* blocks, std::span<Digest> digests) {
  auto* const manager = static_cast<IMB_MGR*>(manager_);
  size_t right = 0;
  const auto count = [&right](const IMB_JOB* job) {
    if (job != nullptr && job->status == IMB_STATUS_COMPLETED) ++right;
    return job != nullptr;
  };
  for (size_t i = 0; i < digests.size(); ++i) {
    IMB_JOB* const job = IMB_GET_NEXT_JOB(manager);
    *job = {};
    job->cipher_mode = IMB_CIPHER_NULL;
    job->cipher_direction = IMB_DIR_ENCRYPT;
    job->chain_order = IMB_ORDER_HASH_CIPHER;
    job->hash_alg = IMB_AUTH_SHA_256;
    job->src = blocks + i * kVerityBlock;
    job->msg_len_to_hash_in_bytes = kVerityBlock;
    job->auth_tag_output = digests[i].data();
    job->auth_tag_output_len_in_bytes = sizeof(Digest);
    (void)count(IMB_SUBMIT_JOB(manager));
  }
  while (count(IMB_FLUSH_JOB(manager))) {
  }
  return right == digests.size();
}

}  // namespace cachecore

#else

namespace cachecore {

std::unique_ptr<MultiHasher> MultiHasher::Make() { return nullptr; }
MultiHasher::~MultiHasher() = default;
bool MultiHasher::Hash(const uint8_t*, std::span<Digest>) { return false; }

}  // namespace cachecore

#endif
