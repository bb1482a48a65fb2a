// Barriers and warp operations.
#include <bit>
#include <cstring>

#include "kernels/host/worker.hpp"

namespace shrike::cuda::host {
namespace {

// Performs the operation that `lane` waits in, once every lane of its mask that still runs waits in the same.
void try_warp_operation(Worker& w, Warp& warp, unsigned lane) {
  const auto base = static_cast<unsigned>(&warp - w.warps) * 32;
  const Thread* lanes = &w.threads[base];
  const unsigned needed = lanes[lane].mask & warp.exist & ~warp.done;
  if ((warp.waiting & needed) != needed) return;
  void* operands[32] = {};
  for (unsigned i = 0; i < 32; ++i) {
    if ((needed >> i & 1) == 0) continue;
    if (lanes[i].mask != lanes[lane].mask || lanes[i].operation != lanes[lane].operation) return;
    operands[i] = lanes[i].operand;
  }
  if (lanes[lane].operation != nullptr) lanes[lane].operation(operands, needed);
  warp.waiting &= ~needed;
  for (unsigned i = 0; i < 32; ++i) {
    if (needed >> i & 1) make_ready(w, base + i);
  }
}

// Copies of a few bytes as words: memcpy of a size known only now is a call, which the thread sanitizer would watch.
void copy_word(void* to, const void* from, std::size_t bytes) {
  switch (bytes) {
    case 16: std::memcpy(to, from, 16); break;
    case 8: std::memcpy(to, from, 8); break;
    case 4: std::memcpy(to, from, 4); break;
    case 2: std::memcpy(to, from, 2); break;
    default: std::memcpy(to, from, 1);
  }
}

constexpr unsigned char nan_bytes[16] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

struct Shuffle {
  void* value;
  std::size_t bytes;
  int source;
  unsigned char given[16];
};

void shuffle(void* const* operands, unsigned active) {
  for (unsigned i = 0; i < 32; ++i) {
    if ((active >> i & 1) == 0) continue;
    const Shuffle& mine = *static_cast<const Shuffle*>(operands[i]);
    if (mine.source < 0) continue;
    if (active >> mine.source & 1) {
      copy_word(mine.value, static_cast<const Shuffle*>(operands[mine.source])->given, mine.bytes);
    } else {
      copy_word(mine.value, nan_bytes, mine.bytes);
    }
  }
}

struct Ballot {
  bool predicate;
  unsigned result;
};

void ballot(void* const* operands, unsigned active) {
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i) {
    if ((active >> i & 1) && static_cast<const Ballot*>(operands[i])->predicate) result |= 1u << i;
  }
  for (unsigned i = 0; i < 32; ++i) {
    if (active >> i & 1) static_cast<Ballot*>(operands[i])->result = result;
  }
}

void gather_pointers(void* const* operands, unsigned active) {
  if (active != 0xffffffffu) stop("ldmatrix needs all 32 lanes of the warp", running().at);
  Warp& warp = current_worker->warps[running().linear / 32];
  for (unsigned i = 0; i < 32; ++i) warp.pointers[i] = operands[i];
}

// Each lane releases an object of its own and acquires those of all lanes of the mask.
struct Meeting {
  void* mine;
  void* all[32];
};

void meet(void* const* operands, unsigned active) {
  for (unsigned i = 0; i < 32; ++i) {
    for (unsigned j = 0; j < 32; ++j) {
      if ((active >> i & 1) && (active >> j & 1)) {
        static_cast<Meeting*>(operands[i])->all[j] = static_cast<Meeting*>(operands[j])->mine;
      }
    }
  }
}

char fence_sync = 0;

}  // namespace

int block_barrier(bool predicate, const Site& at) {
  Worker& w = *current_worker;
  Thread& t = running();
  Barrier& b = w.barrier;
  if (b.arrived > 0 && (b.at.line() != at.line() || std::strcmp(b.at.file_name(), at.file_name()) != 0)) {
    fail_block(t, "divergent barrier: %u threads wait in %s at %s:%u, this one arrived in %s at %s:%u", b.arrived,
               b.at.function_name(), short_file(b.at), static_cast<unsigned>(b.at.line()), at.function_name(), short_file(at),
               static_cast<unsigned>(at.line()));
  }
  char* const sync = &b.sync[b.phase % 2];
  release(sync);
  b.at = at;
  b.predicates += predicate ? 1 : 0;
  if (++b.arrived == w.count) {
    for (unsigned i = 0; i < w.count; ++i) {
      if (w.threads[i].state == State::at_barrier) make_ready(w, i);
    }
    b.result = b.predicates;
    b.arrived = b.predicates = 0;
    ++b.phase;
  } else {
    t.state = State::at_barrier;
    t.at = at;
    yield();
  }
  acquire(sync);
  return static_cast<int>(b.result);
}

void warp_operation(unsigned mask, WarpOperation* operation, void* operand, const Site& at) {
  Worker& w = *current_worker;
  Thread& t = running();
  Warp& warp = w.warps[t.linear / 32];
  const unsigned lane = t.linear % 32;
  if ((mask >> lane & 1) == 0) {
    fail_block(t, "lane %u is not in the mask 0x%08x of its warp operation in %s at %s:%u", lane, mask, at.function_name(),
               short_file(at), static_cast<unsigned>(at.line()));
  }
  t.mask = mask;
  t.operation = operation;
  t.operand = operand;
  t.at = at;
  t.state = State::in_warp_operation;
  warp.waiting |= 1u << lane;
  try_warp_operation(w, warp, lane);
  if (warp.waiting >> lane & 1) {
    yield();
  } else {  // it was the last to come, and just goes on
    w.ready[t.linear / 64] &= ~(std::uint64_t{1} << (t.linear % 64));
    t.state = State::running;
  }
}

void thread_ended(Worker& w, Thread& t) {
  Warp& warp = w.warps[t.linear / 32];
  warp.done |= 1u << (t.linear % 32);
  if (warp.waiting != 0) try_warp_operation(w, warp, static_cast<unsigned>(std::countr_zero(warp.waiting)));
}

void warp_barrier(unsigned mask, const Site& at) {
  if (!SHRIKE_TSAN) return warp_operation(mask, nullptr, nullptr, at);
  Thread& t = running();
  Meeting meeting{&t.sync[t.syncs++ % 2], {}};
  release(meeting.mine);
  warp_operation(mask, meet, &meeting, at);
  for (void* sync : meeting.all) {
    if (sync != nullptr) acquire(sync);
  }
}

void fence() {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  release(&fence_sync);
  acquire(&fence_sync);
}

void warp_shuffle(unsigned mask, void* value, std::size_t bytes, int source, const Site& at) {
  Shuffle operand{value, bytes, source, {}};
  if (bytes > 16 || (bytes & (bytes - 1)) != 0) stop("a shuffle of other than 1, 2, 4, 8 or 16 bytes", at);
  copy_word(operand.given, value, bytes);
  warp_operation(mask, shuffle, &operand, at);
}

unsigned warp_ballot(unsigned mask, bool predicate, const Site& at) {
  Ballot operand{predicate, 0};
  warp_operation(mask, ballot, &operand, at);
  return operand.result;
}

const void* const* warp_pointers(const void* mine, const Site& at) {
  warp_operation(0xffffffffu, gather_pointers, const_cast<void*>(mine), at);
  return current_worker->warps[running().linear / 32].pointers;
}

}  // namespace shrike::cuda::host
