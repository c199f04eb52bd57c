"""Kernels for CUDA GPUs: each pass over memory that a relaxation consists of, in one launch.

In CuPy every operation in ops.py is a launch that reads and writes whole arrays: max-pooling and its switches take a dozen,
a patch matrix three. Here each is one kernel; products of matrices are cuBLAS's. One free step is then, for each synapse,

    up      cols = im2col(s_n);  y = cols @ W;  v, switches = pool(y);  v + b         4 launches
    down    y = unpool(s_{n+1}, switches);  cols = y @ W^T;  col2im(cols)             3
    update  u = up + down;  s_n = sigma(u)                                            2

The twin of a kernel is the function of ops.py or activations.py of the same name. It runs instead wherever the kernel
cannot (NumPy, complex numbers), so `fused(network)` is right everywhere, and tests compare the two bit for bit.
A patch matrix takes at most MEMORY bytes: larger batches go through it in pieces.
"""

import copy
import math
from functools import cache, partial

from .. import ops
from ..activations import CLIP, HARD_SIGMOID
from ..backend import array_module
from ..synapse import Conv
from ..vectorfield import Asymmetric

MEMORY = 1 << 28  # bytes

# --- the kernels: arguments, results, and the code for element i of the results ---------------------------------------------
# Sizes in capitals are written into the code, so that the compiler divides by constants. Images are (N, H, W, C).

PATCH = """
    int q = i, c = q % C, b = q / C % K, a = q / (C*K) % K, at = q / (C*K*K), n = at / (W_OUT*H_OUT);
    int row = at / W_OUT % H_OUT * STRIDE + a - PADDING, column = at % W_OUT * STRIDE + b - PADDING;
    bool inside = row >= 0 && row < H && column >= 0 && column < W;"""
WINDOW = """
    int q = i, c = q % C, column = q / C % (W/2) * 2, row = q / (C*(W/2)) % (H/2) * 2, n = q / (C*(W/2)*(H/2));
    int first = ((n*H + row)*W + column)*C + c;
    T y0 = y[first], y1 = y[first + C], y2 = y[first + W*C], y3 = y[first + W*C + C];"""
PIXEL = """
    int q = i, c = q % C, column = q / C % W, row = q / (C*W) % H, n = q / (C*W*H);
    int window = ((n*(H/2) + row/2)*(W/2) + column/2)*C + c;
    bool covered = row/2 < H/2 && column/2 < W/2;"""
KERNELS = {
    "im2col": ("raw T x", "T cols", PATCH + "cols = inside ? x[((n*H + row)*W + column)*C + c] : T(0)"),
    "col2im": ("raw T cols", "T x", """
    int q = i, c = q % C, column = q / C % W + PADDING, row = q / (C*W) % H + PADDING, n = q / (C*W*H); T sum = 0;
    for (int a = 0; a < K; a++) for (int b = 0; b < K; b++) {
        int down = row - a, right = column - b, i_out = down / STRIDE, j_out = right / STRIDE;
        if (down >= 0 && down % STRIDE == 0 && i_out < H_OUT && right >= 0 && right % STRIDE == 0 && j_out < W_OUT)
            sum += cols[((((n*H_OUT + i_out)*W_OUT + j_out)*K + a)*K + b)*C + c];
    }
    x = sum"""),
    "max_pool": ("raw T y", "T v, uint8 switches", WINDOW + """
    T most = y0; int corner = 0;
    if (y1 > most) { most = y1; corner = 1; }
    if (y2 > most) { most = y2; corner = 2; }
    if (y3 > most) { most = y3; corner = 3; }
    if (y1 != y1 || y2 != y2 || y3 != y3) most = y1 + y2 + y3;  /* NaN, as in NumPy */
    v = most; switches = corner"""),
    "max_pool_at": ("raw T y, uint8 switches", "T v", WINDOW +
                    "v = switches == 0 ? y0 : switches == 1 ? y1 : switches == 2 ? y2 : y3"),
    "max_unpool": ("raw T v, raw uint8 switches", "T y", PIXEL +
                   "y = covered && switches[window] == row % 2 * 2 + column % 2 ? v[window] : T(0)"),
    "hard-sigmoid": ("T u", "T s", "T z = T(0.5) * u; s = z < 0 ? T(0) : z > 1 ? T(1) : z"),  # NaN stays NaN
    "clip": ("T u", "T s", "s = u < 0 ? T(0) : u > 1 ? T(1) : u"),
}


def runs_on(a, *shape):
    """Whether the kernels take this array, and give one of this shape: CuPy's, real, and both short enough for 32-bit indices."""
    return hasattr(array_module(a), "ElementwiseKernel") and a.dtype.kind == "f" and max(a.size, math.prod(shape)) < 2**31


@cache
def compiled(xp, name, **sizes):
    arguments, results, code = KERNELS[name]
    constants = "".join(f"const int {size} = {value};\n" for size, value in sizes.items())
    return xp.ElementwiseKernel(arguments, results, constants + code, f"ep_{name.replace('-', '_')}")


def launch(name, shape, *arrays, dtypes=None, **sizes):
    """A new array of this shape (or one per dtype), filled by the kernel from `arrays`."""
    xp = array_module(arrays[0])
    results = [xp.empty(shape, dtype) for dtype in dtypes or [arrays[0].dtype]]
    compiled(xp, name, **sizes)(*map(xp.ascontiguousarray, arrays), *results)
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


def max_pool_at(y, switches):
    if not runs_on(y):
        return ops.max_pool_at(y, switches)
    return launch("max_pool_at", switches.shape, y, switches, H=y.shape[1], W=y.shape[2], C=y.shape[3])


def max_unpool(v, switches, shape):
    if not runs_on(v, len(v), *shape, v.shape[3]):
        return ops.max_unpool(v, switches, shape)
    return launch("max_unpool", (len(v), *shape, v.shape[3]), v, switches, H=shape[0], W=shape[1], C=v.shape[3])


MAX_POOL = ops.MAX_POOL._replace(pool=max_pool, pool_at=max_pool_at, unpool=max_unpool)


def sigma(twin, name, u):
    return launch(name, u.shape, u) if runs_on(u) else twin(u)


# --- a network that uses them -----------------------------------------------------------------------------------------


class FusedConv(Conv):
    """`Conv` with the passes above: the same numbers, but for the order of additions in products of matrices."""

    def __init__(self, conv):
        vars(self).update(vars(conv), pool=MAX_POOL if conv.pool == ops.MAX_POOL else conv.pool)

    def _conv(self, pre):
        """(N, H, W, C_pre) -> (N, H', W', C_post)"""
        return self._joined(lambda pre: (self._patches(pre) @ self._matrix()).reshape(len(pre), *self.conv_shape, -1), pre)

    def drive_pre(self, post, switches):
        def adjoint(y):
            cols = y.reshape(-1, y.shape[3]) @ self._matrix().T
            return col2im(cols.reshape(*y.shape[:3], *self.W.shape[:3]), self.pre_shape[:2], self.stride, self.padding)
        return self._joined(adjoint, self.pool.unpool(post, switches, self.conv_shape))

    def linear_hebbian(self, pre, post, switches):
        y = self.pool.unpool(post, switches, self.conv_shape)
        return {"W": sum(self._patches(pre[piece]).T @ y[piece].reshape(-1, y.shape[3])
                         for piece in self._pieces(pre)).reshape(self.W.shape)}

    def _patches(self, pre):
        return im2col(pre, len(self.W), self.stride, self.padding).reshape(-1, self._matrix().shape[0])

    def _matrix(self):
        return self.W.reshape(-1, self.W.shape[3])  # (k k C_pre, C_post)

    def _pieces(self, a):
        """Slices of images whose patch matrix fits into MEMORY."""
        bytes_per_image = self.conv_shape[0] * self.conv_shape[1] * self._matrix().shape[0] * a.dtype.itemsize
        n = max(1, MEMORY // bytes_per_image)
        return [slice(start, start + n) for start in range(0, len(a), n)]

    def _joined(self, f, a):
        parts = [f(a[piece]) for piece in self._pieces(a)]
        return parts[0] if len(parts) == 1 else array_module(a).concatenate(parts)


def fused(network):
    """`network` with these kernels, on a GPU; `network` itself where its arrays are NumPy's.

    It owns the same parameter arrays, and takes the place of `network`: set_parameters on one does not change the other.
    """
    if not hasattr(array_module(next(iter(network.parameters().values()))), "ElementwiseKernel"):
        return network
    other, activation = copy.copy(network), network.activation
    other.synapses = [_fused(synapse) for synapse in network.synapses]
    if activation in (HARD_SIGMOID, CLIP):
        other.activation = activation._replace(sigma=partial(sigma, activation.sigma, activation.name))
    return other


def _fused(synapse):
    if type(synapse) is Asymmetric:
        synapse = copy.copy(synapse)
        synapse.forward, synapse.feedback = _fused(synapse.forward), _fused(synapse.feedback)
    return FusedConv(synapse) if type(synapse) is Conv else synapse
