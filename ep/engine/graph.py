"""A training step as a CUDA graph: what the one loop of the core launches is recorded once, and then replayed by a single launch.

With two or three sweeps a step, a GPU spends its time waiting for the host: hundreds of launches of some 10 microseconds each.
Nothing in a relaxation of a fixed number of steps looks at a number, so all of it can be recorded, for the arrays where the
parameters lie. `recordable` says which steps can be; the others run as they are.
"""

from contextlib import suppress

from ..backend import array_module
from . import blas, gpu

KEPT = 4  # recordings: of whole batches and the rest of an epoch, for either sign of a nudge that is drawn


def recordable(network, phases):
    """Whether steps of this network can be recorded: on a GPU, its products by `blas.matmul`, all its parts this package's and
    real, and no tolerance, for then the host waits for the residual of each step."""
    return (blas.direct(array_module(network.any_parameter)) is not None and gpu.recordable(network)
            and not (phases.free.tolerance or phases.nudged.tolerance))


class Recorder:
    """Keeps what it has recorded for one training on a GPU, for one thread, and the memory that belongs to it."""

    def __init__(self) -> None:
        self.recordings: dict = {}

    def __call__(self, function, network, key, *arrays):
        """(arrays, rest) = function(*arrays): recorded the first time, replayed for the same network, key and shapes.

        key: everything else that function depends on. The arrays that are returned are the caller's; the rest is what function
        returned when it was recorded.
        """
        where = tuple(w.data.ptr for w in network.parameters().values())  # a recording reads the parameters there
        parts = network.activation, type(network.cost), tuple(network.wiring), tuple(map(described, network.synapses))
        key = where, parts, network.feedback, key, tuple((a.shape, a.dtype) for a in arrays)
        recorded = self.recordings.pop(key, None)
        for old in list(self.recordings)[:1 - KEPT]:  # the last in the dictionary is the last that was used
            del self.recordings[old]
        self.recordings[key] = recorded = recorded or Recorded(function, *arrays)
        results, rest = recorded(*arrays)
        return [a.copy() for a in results], rest  # the next call overwrites them: a batch may have several chunks


def described(synapse):
    """What a recording depends on, beside where the parameters lie."""
    if synapse.parts:
        return type(synapse), *(described(getattr(synapse, name)) for name in synapse.parts)
    sizes = (getattr(synapse, name, None) for name in ("pre_shape", "post_shape", "stride", "padding", "pool"))
    return type(synapse), *sizes


class Recorded:
    """function(*arrays), a CUDA graph: recorded here, replayed by every call, in memory that nothing else uses.

    It must launch kernels only, and not look at a number; products are those of `blas.matmul`, of real matrices (so no complex
    nudging). Its results are the same arrays every time.
    """

    def __init__(self, function, *arrays):
        cupy, self.function = array_module(arrays[0]), function  # kept, as are the parameters it knows: they are not to move
        stream, self.pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
        cupy.cuda.Device().synchronize()
        with stream, cupy.cuda.using_allocator(self.pool.malloc):
            self.arguments = [a.copy() for a in arrays]
            function(*self.arguments)  # compiles the kernels, and fills the pool
            stream.synchronize()
            stream.begin_capture()
            try:
                self.results = function(*self.arguments)
            except BaseException:
                with suppress(Exception):  # the stream must not go on recording; the first error is the one to tell
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()

    def __call__(self, *arrays):
        for own, given in zip(self.arguments, arrays):
            own[...] = given
        self.graph.launch()
        return self.results
