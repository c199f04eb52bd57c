// The CUDA built-ins that CuPy's kernels use, on a CPU, and what runs a kernel over its grid.
//
// The threads of a block run one after the other. Where a kernel has __syncthreads(), each thread has a stack of its own and
// __syncthreads() switches to the next one (ucontext starts a thread; setjmp and longjmp switch without a system call).
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __CUDACC_RTC__ 1
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define CUDART_VERSION 13000

struct Triple {
  unsigned x, y, z;
};
static Triple threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

// --- threads of a block that wait for each other ----------------------------------------------------------------------

struct Thread {
  ucontext_t begin;
  jmp_buf here;
  bool started, done;
  Triple index;
};
static std::vector<Thread> threads;
static Thread* running = nullptr;
static jmp_buf scheduler;
static ucontext_t scheduler_begin;

static inline void __syncthreads() {
  if (!_setjmp(running->here)) _longjmp(scheduler, 1);
}

// --- functions of CUDA ------------------------------------------------------------------------------------------------

using std::abs;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
template <class A, class B>
static inline auto max(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  return (T)a < (T)b ? (T)b : (T)a;
}
template <class A, class B>
static inline auto min(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  return (T)b < (T)a ? (T)b : (T)a;
}
static inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
static inline float rsqrt(float x) { return 1.f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1. / std::sqrt(x); }

static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }

template <class To, class From>
static inline To same_bits(From from) {
  To to;
  static_assert(sizeof to == sizeof from, "");
  memcpy(&to, &from, sizeof to);
  return to;
}
static inline float __int_as_float(int bits) { return same_bits<float>(bits); }
static inline int __float_as_int(float x) { return same_bits<int>(x); }
static inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }
static inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }

// Threads take turns only at __syncthreads(), so plain reads and writes are atomic.
template <class T>
static inline T atomicExch(T* p, T value) {
  T old = *p;
  *p = value;
  return old;
}
template <class T>
static inline T atomicAdd(T* p, T value) {
  return atomicExch(p, (T)(*p + value));
}
template <class T>
static inline T atomicMax(T* p, T value) {
  return atomicExch(p, std::max(*p, value));
}
template <class T>
static inline T atomicMin(T* p, T value) {
  return atomicExch(p, std::min(*p, value));
}
template <class T>
static inline T atomicCAS(T* p, T expected, T value) {
  return atomicExch(p, *p == expected ? value : *p);
}

// --- calling a kernel -------------------------------------------------------------------------------------------------

template <class... A, size_t... I>
static inline void call(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
  kernel(*reinterpret_cast<typename std::remove_const<typename std::remove_reference<A>::type>::type*>(parameters[I])...);
}
template <class... A>
static inline void call(void (*kernel)(A...), void** parameters) {
  call(kernel, parameters, std::index_sequence_for<A...>{});
}

typedef void (*Body)(void**);
static Body body;
static void** body_parameters;

static void thread_main() {
  body(body_parameters);
  running->done = true;
  _longjmp(scheduler, 1);
}

static void run_waiting_block(unsigned n) {
  const size_t STACK = 64 << 10;
  static std::vector<char> stacks;
  if (stacks.size() < n * STACK) stacks.resize(n * STACK);
  threads.resize(n);
  for (unsigned i = 0; i < n; i++) {
    Thread& t = threads[i];
    t.started = t.done = false;
    t.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  }
  static unsigned left, next;
  for (left = n, next = 0; left; next = (next + 1) % n) {
    if (threads[next].done) continue;
    running = &threads[next];
    threadIdx = running->index;
    if (!_setjmp(scheduler)) {
      if (running->started) _longjmp(running->here, 1);
      running->started = true;
      getcontext(&running->begin);
      running->begin.uc_stack.ss_sp = &stacks[next * STACK];
      running->begin.uc_stack.ss_size = STACK;
      running->begin.uc_link = nullptr;
      makecontext(&running->begin, thread_main, 0);
      setcontext(&running->begin);
    }
    if (running->done) left--;
  }
}

static void launch(Body kernel, const unsigned* grid, const unsigned* block, void** parameters, bool waits) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  body = kernel;
  body_parameters = parameters;
  const unsigned n = block[0] * block[1] * block[2];
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        blockIdx = {x, y, z};
        if (waits) {
          run_waiting_block(n);
          continue;
        }
        for (unsigned i = 0; i < n; i++) {
          threadIdx = {i % block[0], i / block[0] % block[1], i / (block[0] * block[1])};
          kernel(parameters);
        }
      }
}
