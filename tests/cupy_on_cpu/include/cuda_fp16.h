// CUDA's half precision numbers, as far as CuPy's headers name them. Nothing here computes with them.
#pragma once
#include <cstring>
#include <type_traits>

struct __half_raw {
  unsigned short x;
};

struct __half {
  unsigned short x;
  __half() = default;
  __half(__half_raw raw) : x(raw.x) {}
  template <class T, class = typename std::enable_if<std::is_arithmetic<T>::value>::type>
  __half(T value) {
    _Float16 half = (_Float16)(float)value;
    memcpy(&x, &half, 2);
  }
  operator float() const {
    _Float16 half;
    memcpy(&half, &x, 2);
    return (float)half;
  }
  operator __half_raw() const { return {x}; }
};
typedef __half half;

static inline __half __float2half_rn(float value) { return __half(value); }
static inline float __half2float(__half value) { return (float)value; }
static inline unsigned short __half_as_ushort(__half value) { return value.x; }
static inline __half __ushort_as_half(unsigned short bits) { return __half(__half_raw{bits}); }
static inline bool __hisnan(__half value) { return (float)value != (float)value; }
static inline int __hisinf(__half value) {
  float number = value;
  return number - number != 0 && number == number;
}
