// What the pool asks of the number of threads, besides num_threads().
#pragma once

namespace shrike {

// Quotas change while a process runs: where the number is automatic, they are read again every ten seconds. Where that fails,
// the number stays: never throws.
void look_again_at_threads();

}  // namespace shrike
