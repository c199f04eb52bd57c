// CuPy's complex numbers are Thrust's; this is all they need of it.
#pragma once
#define THRUST_NAMESPACE_BEGIN namespace thrust {
#define THRUST_NAMESPACE_END }
