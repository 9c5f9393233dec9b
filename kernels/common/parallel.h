// A loop over independent pieces of work on a few threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace rotomem {

// Calls piece(i, worker) once for every i in [0, count); worker is in [0, threads) and never runs twice at a time,
// so that it may own scratch. Which worker takes which i is left to chance: results must not depend on it.
// The first exception ends the loop and is thrown again here. threads < 1 means 1.
//
// Threads live for one call: starting one costs some 20 us, and a pool would not survive the fork() of a host.
template <class Piece>
void parallel_for(std::int64_t count, int threads, Piece&& piece) {
  threads = static_cast<int>(std::min<std::int64_t>(std::max(threads, 1), count));
  if (threads <= 1) {
    for (std::int64_t i = 0; i < count; ++i) piece(i, 0);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_lock;
  auto work = [&](int worker) {
    try {
      for (std::int64_t i; (i = next.fetch_add(1)) < count;) piece(i, worker);
    } catch (...) {
      next.store(count);
      std::lock_guard<std::mutex> hold(failure_lock);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads - 1));
  try {
    for (int worker = 1; worker < threads; ++worker) others.emplace_back(work, worker);
  } catch (const std::system_error&) {
    // No more threads to be had: those that started, and this one, do the work.
  }
  work(0);
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace rotomem
