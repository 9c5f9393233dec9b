// CUDA threads as fibres: the threads of one block take turns on one CPU thread, and change only where they must wait
// for each other. The order of the turns can be changed, so that a forgotten barrier shows as a changed result.
//
// Stricter than a device: all 32 lanes of a warp have to take part in what a warp does together, all of a block's
// threads in its barriers, and no thread may end while others wait for it.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

constexpr unsigned kLanes = 32;
constexpr std::size_t kStack = 128 * 1024;

// Threads that have to come together before any goes on.
struct Barrier {
  unsigned members = 0, arrived = 0, generation = 0;
  const char* what = "";
};

// What lanes show each other. Two of them in turn: a lane may be at its next exchange while others still look at
// this one, but never at the one after.
struct Exchange {
  alignas(16) unsigned char shown[kLanes][64];
  alignas(16) unsigned char result[kLanes][64];
};

struct Warp {
  Barrier barrier;
  Exchange exchange[2];
};

// A copy that copies_wait has not seen yet.
struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};

struct Thread {
  ucontext_t context;
  jmp_buf here;
  std::vector<unsigned char> stack = std::vector<unsigned char>(kStack);
  bool started = false, done = false;
  unsigned index = 0;
  Barrier* waits = nullptr;
  unsigned generation = 0;                // of the barrier that it waits for
  std::vector<std::vector<Copy>> copies;  // by group; the last one is still open

  bool may_run() const { return !done && (!waits || waits->generation != generation); }
};

inline std::vector<std::unique_ptr<Thread>> threads;
inline std::vector<Warp> warps;
inline Barrier block;
inline Thread* current = nullptr;
inline jmp_buf scheduler;
inline ucontext_t scheduler_context;
inline std::function<void()> body;
inline std::exception_ptr failure;
inline std::vector<unsigned char> shared;
inline std::size_t shared_bytes = 0;
inline unsigned order = 0;            // which turns threads take, see run_block
inline int multiprocessors = 4;       // what cudaDeviceGetAttribute tells

// Memory nobody has written yet: not a number, whatever it is read as.
constexpr int kUnwritten = 0xff;

inline void* shared_memory() { return shared.data() + (16 - reinterpret_cast<std::uintptr_t>(shared.data()) % 16) % 16; }

inline void wait_for(Barrier& barrier, const char* what, const std::function<void()>& last = {}) {
  if (barrier.arrived > 0 && std::strcmp(barrier.what, what) != 0)
    throw std::runtime_error(std::string("threads that belong together do different things: ") + barrier.what +
                             " and " + what);
  barrier.what = what;
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == barrier.members) {
    if (last) last();
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  current->waits = &barrier;
  current->generation = generation;
  if (!_setjmp(current->here)) _longjmp(scheduler, 1);
}

inline Warp& warp() { return warps[current->index / kLanes]; }
inline unsigned lane() { return current->index % kLanes; }

// Shows `mine` to the other lanes; returns all 32 of them. `together` runs once, when all are there.
template <class T>
const T* exchange(const char* what, const T& mine) {
  static_assert(sizeof(T) <= 64 && std::is_trivially_copyable_v<T>, "more than a lane can show");
  Warp& mates = warp();
  const unsigned generation = mates.barrier.generation;
  Exchange& board = mates.exchange[generation % 2];
  std::memcpy(reinterpret_cast<T*>(board.shown) + lane(), &mine, sizeof mine);
  wait_for(mates.barrier, what);
  return reinterpret_cast<const T*>(board.shown);
}

// The same where one computation serves all lanes: together(shown, result) runs once; returns the lane's own result.
template <class R, class T, class Together>
R exchange_once(const char* what, const T& mine, Together&& together) {
  static_assert(sizeof(T) <= 64 && sizeof(R) <= 64, "more than a lane can show");
  Warp& mates = warp();
  Exchange& board = mates.exchange[mates.barrier.generation % 2];
  std::memcpy(reinterpret_cast<T*>(board.shown) + lane(), &mine, sizeof mine);
  wait_for(mates.barrier, what, [&] {
    together(reinterpret_cast<const T*>(board.shown), reinterpret_cast<R*>(board.result));
  });
  return reinterpret_cast<const R*>(board.result)[lane()];
}

inline void fibre() {
  try {
    body();
    if (block.arrived > 0 || warp().barrier.arrived > 0)
      throw std::runtime_error(std::string("a thread ended while others wait: ") +
                               (block.arrived > 0 ? block.what : warp().barrier.what));
    for (const auto& group : current->copies)
      if (!group.empty()) throw std::runtime_error("a thread ended before its copies: no copies_wait<0>()");
    --block.members;
    --warp().barrier.members;
  } catch (...) {
    if (!failure) failure = std::current_exception();
  }
  current->done = true;
  _longjmp(scheduler, 1);
}

inline void resume(Thread& thread) {
  current = &thread;
  thread.waits = nullptr;
  threadIdx = dim3(thread.index);
  if (_setjmp(scheduler)) return;
  if (thread.started) _longjmp(thread.here, 1);
  thread.started = true;
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack.data();
  thread.context.uc_stack.ss_size = thread.stack.size();
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, fibre, 0);
  setcontext(&thread.context);
}

// Runs one block. Warps take turns in the order that `order` names: 0 ascending, 1 descending, more: mixed.
inline void run_block() {
  const unsigned count = blockDim.x;
  while (threads.size() < count) threads.push_back(std::make_unique<Thread>());
  if (count % kLanes) throw std::runtime_error("a block of threads that is no multiple of 32");
  warps.assign(count / kLanes, Warp());
  block = Barrier{count};
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = *threads[i];
    thread.started = thread.done = false;
    thread.waits = nullptr;
    thread.index = i;
    thread.copies.assign(1, {});
  }
  for (Warp& one : warps) one.barrier = Barrier{kLanes};
  constexpr std::size_t guard = 64;
  shared.assign(shared_bytes + 16 + guard, static_cast<unsigned char>(kUnwritten));
  failure = nullptr;
  for (unsigned left = count, turn = 0; left > 0; ++turn) {
    bool moved = false;
    for (unsigned i = 0; i < count; ++i) {
      unsigned at = i;
      if (order == 1) at = count - 1 - i;
      if (order > 1) at = (i / kLanes * (2 * order + 1) + turn * order) % warps.size() * kLanes + (kLanes - 1 - i % kLanes);
      Thread& thread = *threads[at];
      if (!thread.may_run()) continue;
      moved = true;
      resume(thread);
      if (failure) std::rethrow_exception(failure);
      if (thread.done) --left;
    }
    if (!moved) throw std::runtime_error("every thread waits for another");
  }
  const auto* end = static_cast<unsigned char*>(shared_memory()) + shared_bytes;
  for (std::size_t i = 0; i < guard - 16; ++i)
    if (end[i] != kUnwritten) throw std::runtime_error("a block wrote behind its shared memory");
}

}  // namespace cuda_on_cpu
