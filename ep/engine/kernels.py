"""Kernels for CUDA GPUs: each pass over memory that a relaxation consists of, in one launch.

In CuPy every operation in ops.py is a launch that reads and writes whole arrays: max-pooling and its switches take a dozen,
a patch matrix three. Here each is one kernel; products of matrices are cuBLAS's. One free step is then, for each synapse,

    up      cols = im2col(s_n);  y = cols @ W;  v, switches = pool(y) + b             3 launches
    down    y = unpool(s_{n+1}, switches);  cols = y @ W^T;  col2im(cols)             3
    update  u = up + down;  s_n = sigma(u)                                            1

The twin of a kernel is the function of ops.py of the same name, or a method of `Activation`. It runs instead wherever the kernel
cannot (NumPy, complex numbers), and tests compare the two bit for bit. The synapses that use the kernels are in gpu.py.
"""

import math
from functools import cache

from .. import ops
from ..backend import array_module

# --- the kernels: arguments, results, and the code for element i of the results ---------------------------------------------
# Sizes in capitals are written into the code, so that the compiler divides by constants. Images are (N, H, W, C).

# Where the channels are a multiple of AT_ONCE = 4, an element is 4 of them, read and written as one: fewer indices to compute.

FOUR = "struct alignas(4 * sizeof(T)) Four { T a[4]; };"
PATCH = """
    int q = i * AT_ONCE, c = q % C, b = q / C % K, a = q / (C*K) % K, at = q / (C*K*K), n = at / (W_OUT*H_OUT);
    int row = at / W_OUT % H_OUT * STRIDE + a - PADDING, column = at % W_OUT * STRIDE + b - PADDING;
    bool inside = row >= 0 && row < H && column >= 0 && column < W;"""
WINDOW = """
    int q = i, c = q % C, column = q / C % (W/2) * 2, row = q / (C*(W/2)) % (H/2) * 2, n = q / (C*(W/2)*(H/2));
    int first = ((n*H + row)*W + column)*C + c;
    T y0 = y[first], y1 = y[first + C], y2 = y[first + W*C], y3 = y[first + W*C + C];"""
MOST = """
    T most = y0; int corner = 0;
    if (y1 > most) { most = y1; corner = 1; }
    if (y2 > most) { most = y2; corner = 2; }
    if (y3 > most) { most = y3; corner = 3; }
    if (y1 != y1 || y2 != y2 || y3 != y3) most = y1 + y2 + y3;  /* NaN, as in NumPy */
    """
PIXEL = """
    int q = i * AT_ONCE, c = q % C, column = q / C % W, row = q / (C*W) % H, n = q / (C*W*H);
    int window = ((n*(H/2) + row/2)*(W/2) + column/2)*C + c;
    bool covered = row/2 < H/2 && column/2 < W/2;"""
KERNELS = {
    "im2col": ("raw T x", "T cols", PATCH + "cols = inside ? x[((n*H + row)*W + column)*C + c] : T(0)"),
    "im2col_by_4": ("raw T x", "raw T cols", FOUR + PATCH + """
    Four zero = {}, *to = (Four*)&cols[0] + i; *to = inside ? *(const Four*)&x[((n*H + row)*W + column)*C + c] : zero"""),
    "col2im": ("raw T cols", "T x", """
    int q = i, c = q % C, column = q / C % W + PADDING, row = q / (C*W) % H + PADDING, n = q / (C*W*H); T sum = 0;
    for (int a = 0; a < K; a++) for (int b = 0; b < K; b++) {
        int down = row - a, right = column - b, i_out = down / STRIDE, j_out = right / STRIDE;
        if (down >= 0 && down % STRIDE == 0 && i_out < H_OUT && right >= 0 && right % STRIDE == 0 && j_out < W_OUT)
            sum += cols[((((n*H_OUT + i_out)*W_OUT + j_out)*K + a)*K + b)*C + c];
    }
    x = sum"""),
    "max_pool": ("raw T y", "T v, uint8 switches", WINDOW + MOST + "v = most; switches = corner"),
    "max_pool_and_add": ("raw T y, raw T b", "T v, uint8 switches", WINDOW + MOST + "v = most + b[c]; switches = corner"),
    "max_pool_at": ("raw T y, uint8 switches", "T v", WINDOW +
                    "v = switches == 0 ? y0 : switches == 1 ? y1 : switches == 2 ? y2 : y3"),
    "max_unpool": ("raw T v, raw uint8 switches", "T y", PIXEL +
                   "y = covered && switches[window] == row % 2 * 2 + column % 2 ? v[window] : T(0)"),
    "max_unpool_by_4": ("raw T v, raw uint8 switches", "raw T y", FOUR + PIXEL + """
    Four here = {}; int corner = row % 2 * 2 + column % 2;
    if (covered) for (int a = 0; a < 4; a++) if (switches[window + a] == corner) here.a[a] = v[window + a];
    Four *to = (Four*)&y[0] + i; *to = here"""),
    "sigma": ("T u, T slope, T low, T high", "T s", "T z = slope * u; s = z < low ? low : z > high ? high : z"),  # NaN stays NaN
    # u = up + gain down, s = clip(slope u, low, high): the last passes of a step
    "update": ("T up, T down, T gain, T slope, T low, T high", "T u, T s", """
    T sum = up + gain * down, z = slope * sum; u = sum; s = z < low ? low : z > high ? high : z"""),
    # w [ sigma(u + d/w) - sigma(u) ] for sigma = clip(slope u, low, high), with v = slope u and e = slope d:
    # clip( e + w (v - s), w (low - s), w (high - s) ), where v - s is 0, exactly, inside the bounds
    "deviation": ("T u, T s, T d, T w, T slope, T low, T high", "T delta", """
    T v = slope * u, least = w * (low - s), most = w * (high - s), e = slope * d + w * (v - s);
    delta = e < least ? least : e > most ? most : e"""),
    "column_sums": ("raw T a", "T sum", """
    T total = 0; for (int row = i / C; row < ROWS; row += OUT) total += a[row*C + i % C];
    sum = total"""),
    # one update of Adam (train/optimizers.py): w, m and v are read, and changed in place
    "adam": ("T g, T b1, T rest1, T b2, T rest2, T rate, T root, T eps, T keep", "T w, T m, T v", """
    m = b1 * m + rest1 * g; v = b2 * v + rest2 * (g * g);
    w = keep * w - rate * (m / (sqrt(v) * root + eps))"""),
}


def runs_on(a, *shape):
    """Whether the kernels take this array, and give one of this shape: CuPy's, real, and both short enough for 32-bit indices."""
    return hasattr(array_module(a), "ElementwiseKernel") and a.dtype.kind == "f" and max(a.size, math.prod(shape)) < 2**31


@cache
def compiled(xp, name, **sizes):
    arguments, results, code = KERNELS[name]
    constants = "".join(f"const int {size} = {value};\n" for size, value in sizes.items())
    return xp.ElementwiseKernel(arguments, results, constants + code, f"ep_{name}", options=("--fmad=false",))


def launch(name, shape, *arrays, dtypes=None, **sizes):
    """A new array of this shape (or one per dtype), filled from `arrays` by the kernel of this name, or by the one _by_4."""
    xp = array_module(arrays[0])
    results = [xp.empty(shape, dtype) for dtype in dtypes or [arrays[0].dtype]]
    arrays = [xp.ascontiguousarray(a) if a.ndim else a for a in arrays]
    if f"{name}_by_4" in KERNELS and shape[-1] % 4 == 0:
        compiled(xp, f"{name}_by_4", AT_ONCE=4, **sizes)(*arrays, *results, size=results[0].size // 4)
    else:
        compiled(xp, name, AT_ONCE=1, **sizes)(*arrays, *results)
    return results if dtypes else results[0]


# --- the same as in ops.py --------------------------------------------------------------------------------------------


def im2col(x, k, stride=1, padding=0):
    N, H, W, C = x.shape
    out = dict(H_OUT=ops.output_size(H, k, stride, padding), W_OUT=ops.output_size(W, k, stride, padding))
    shape = N, *out.values(), k, k, C
    if not runs_on(x, *shape):
        return ops.im2col(x, k, stride, padding)
    return launch("im2col", shape, x, H=H, W=W, C=C, K=k, STRIDE=stride, PADDING=padding, **out)


def col2im(cols, shape, stride=1, padding=0):
    N, H_out, W_out, k, _, C = cols.shape
    if not runs_on(cols, N, *shape, C):
        return ops.col2im(cols, shape, stride, padding)
    return launch("col2im", (N, *shape, C), cols, H=shape[0], W=shape[1], C=C, K=k, STRIDE=stride, PADDING=padding,
                  H_OUT=H_out, W_OUT=W_out)


def max_pool(y):
    if not runs_on(y):
        return ops.max_pool(y)
    N, H, W, C = y.shape
    return tuple(launch("max_pool", (N, H // 2, W // 2, C), y, dtypes=[y.dtype, "uint8"], H=H, W=W, C=C))


def max_pool_and_add(y, b):
    """(max_pool(y) + b, switches)"""
    if not runs_on(y):
        v, switches = ops.max_pool(y)
        return v + b, switches
    N, H, W, C = y.shape
    return tuple(launch("max_pool_and_add", (N, H // 2, W // 2, C), y, b, dtypes=[y.dtype, "uint8"], H=H, W=W, C=C))


def max_pool_at(y, switches):
    if not runs_on(y):
        return ops.max_pool_at(y, switches)
    return launch("max_pool_at", switches.shape, y, switches, H=y.shape[1], W=y.shape[2], C=y.shape[3])


def max_unpool(v, switches, shape):
    if not runs_on(v, len(v), *shape, v.shape[3]):
        return ops.max_unpool(v, switches, shape)
    return launch("max_unpool", (len(v), *shape, v.shape[3]), v, switches, H=shape[0], W=shape[1], C=v.shape[3])


def adam(w, g, m, v, betas, rate, t, eps, weight_decay):
    """Update t of `train.optimizers.Adam`, in one pass over w, g, m and v, of which w, m and v are changed."""
    (b1, b2), number = betas, w.dtype.type
    compiled(array_module(w), "adam")(g, *map(number, (b1, 1 - b1, b2, 1 - b2, rate / (1 - b1**t), (1 - b2**t)**-0.5, eps,
                                                       1 - rate * weight_decay)), w, m, v)


def column_sums(a):
    """Sum over all axes but the last, 32 rows at a time: neighbouring threads read neighbouring columns."""
    a = a.reshape(-1, a.shape[-1])
    if not runs_on(a):
        return a.sum(0)
    while len(a) > 1:
        rows, C = a.shape
        a = launch("column_sums", (-(-rows // 32), C), a, ROWS=rows, C=C, OUT=-(-rows // 32))
    return a[0]
