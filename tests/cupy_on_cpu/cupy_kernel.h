// What every source that CuPy generates begins with; compiled once, as a precompiled header.
#include "cuda_on_cpu.h"
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>

// Bytes of the arrays that a launch is given, each counted once: the least it can move.
template <class T>
static inline size_t bytes_of(const T&) {
  return 0;
}
template <class T, int ndim, bool c, bool i>
static inline size_t bytes_of(const CArray<T, ndim, c, i>& array) {
  return array.size() * sizeof(T);
}
template <class... A, size_t... I>
static inline size_t bytes_of_all(void (*)(A...), void** parameters, std::index_sequence<I...>) {
  return (0 + ... + bytes_of(*reinterpret_cast<typename std::remove_reference<A>::type*>(parameters[I])));
}
template <class... A>
static inline size_t bytes_of_all(void (*kernel)(A...), void** parameters) {
  return bytes_of_all(kernel, parameters, std::index_sequence_for<A...>{});
}
