"""A CUDA device made of host memory, below the real CuPy.

CuPy's extension modules reach the CUDA runtime and driver through C functions that Cython lists in `__pyx_capi__`.
`install()` replaces those that CuPy uses by Python functions; it must run before anything imports cupy. Then

    memory     is host memory: filled with POISON, with a guard on both sides that `overruns` looks at
    a launch   calls `launch_kernel`, which executed.py sets
    `count`    says what was asked of the device: launches, synchronisations, copies, bytes in use

With `dry = True` nothing is computed or copied on the device and memory is all zeros: for counting what would not fit.
"""

import atexit
import ctypes
import os
from collections import Counter

import cupy_backends.cuda.api.driver as driver
import cupy_backends.cuda.api.runtime as runtime

COMPUTE_CAPABILITY = os.environ.get("FAKE_COMPUTE_CAPABILITY", "80")  # of the device: 80 for sm_80
POISON = 0xCD  # every byte of fresh memory: -4.3e8 as float32, -1.5e66 as float64
GUARD = 256  # bytes on either side of an allocation, so also its alignment
GUARD_BYTES = bytes([0xA5]) * GUARD
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2

count = Counter()  # "launches", "synchronisations", "uploads" and "bytes in use", "peak bytes"
launches = []  # names of the kernels, "memcpy" within the device and "memset", in order; emptied by whoever reads it
moved = Counter()  # name of a launch -> bytes of the arrays it was given, over all its launches
overruns = []  # sentences about writes beyond the ends of an allocation that has been freed
dry = False
capturing = False  # whether the stream says that it records a CUDA graph (it does not)
launch_kernel = None  # (name, module, grid, block, parameters) -> bytes of its arrays


def _count(launch, size):
    count["launches"] += 1
    launches.append(launch)
    moved[launch] += size


# --- memory -----------------------------------------------------------------------------------------------------------

_c = ctypes.CDLL(None)
_c.calloc.restype = _c.aligned_alloc.restype = ctypes.c_void_p
_c.calloc.argtypes = _c.aligned_alloc.argtypes = [ctypes.c_size_t] * 2
_c.free.argtypes = [ctypes.c_void_p]
_live = {}  # address -> (size, address of the block around it)


def _malloc(size, *_):
    count["bytes in use"] += size
    count["peak bytes"] = max(count["peak bytes"], count["bytes in use"])
    if dry:  # pages that nobody touches cost nothing
        block = _c.calloc(size + 2 * GUARD, 1)
        address = -(-block // GUARD) * GUARD
    else:
        block = _c.aligned_alloc(GUARD, -(-size // GUARD) * GUARD + 2 * GUARD)
        address = block + GUARD
        ctypes.memset(address, POISON, size)
        for guard in (block, address + size):
            ctypes.memmove(guard, GUARD_BYTES, GUARD)
    _live[address] = size, block
    return address


def _free(address, *_):
    if address in _live:
        _check_guards(address)
        size, block = _live.pop(address)
        count["bytes in use"] -= size
        _c.free(block)


def _check_guards(address):
    size, block = _live[address]
    if block == address - GUARD:  # not allocated while dry
        for guard, where in ((block, "before"), (address + size, "behind")):
            if ctypes.string_at(guard, GUARD) != GUARD_BYTES:
                overruns.append(f"something was written {where} an array of {size} bytes")
                ctypes.memmove(guard, GUARD_BYTES, GUARD)


def found_overruns():
    """Sentences about writes beyond the ends of arrays since the last call, freed ones included."""
    for address in list(_live):
        _check_guards(address)
    found, overruns[:] = list(overruns), []
    return found


def _copy(to, source, size, kind, *_):
    if kind == HOST_TO_DEVICE:
        count["uploads"] += 1
    elif kind != DEVICE_TO_HOST:
        _count("memcpy", 2 * size)
    if kind == DEVICE_TO_HOST or not dry:
        ctypes.memmove(to, source, size)


def _copy_and_wait(to, source, size, kind):
    _wait()
    _copy(to, source, size, kind)


def _fill(address, value, size, *_):
    _count("memset", size)
    if not dry:
        ctypes.memset(address, value, size)


def _wait(*_):
    count["synchronisations"] += 1


# --- modules and kernels ----------------------------------------------------------------------------------------------

_objects = {}  # handle -> what it stands for


def _handle(*what):
    handle = 16 * (len(_objects) + 1)
    _objects[handle] = what
    return handle


def _launch(function, g0, g1, g2, b0, b1, b2, shared, stream, parameters, *_):
    module, name = _objects[function]
    _count(name, launch_kernel(name, _objects[module][0], (g0, g1, g2), (b0, b1, b2), parameters))


# --- putting them in CuPy's place -------------------------------------------------------------------------------------


def _nothing(*_):
    return None


def _zero(*_):
    return 0


_major, _minor = int(COMPUTE_CAPABILITY[:-1]), int(COMPUTE_CAPABILITY[-1])
_MEMORY = (8 << 30, 8 << 30)  # free, in all
_ATTRIBUTES = {1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535, 8: 48 << 10, 10: 32, 16: 8, 39: 2048,
               75: _major, 76: _minor}  # of cudaDeviceGetAttribute: sizes of blocks and grids, shared memory, ...
_PROPERTIES = dict(name=b"host memory", major=_major, minor=_minor, multiProcessorCount=8, maxThreadsPerBlock=1024,
                   warpSize=32, sharedMemPerBlock=48 << 10, totalGlobalMem=_MEMORY[1], maxThreadsPerMultiProcessor=2048)
_RUNTIME = dict(
    getDevice=_zero, setDevice=_nothing, getDeviceCount=lambda: 1, driverGetVersion=lambda: 13000, _ensure_context=_nothing,
    deviceGetAttribute=lambda attribute, device: _ATTRIBUTES.get(attribute, 0), getDeviceProperties=lambda device: _PROPERTIES,
    memGetInfo=lambda: _MEMORY, pointerGetMemoryType=lambda pointer: 2, deviceCanAccessPeer=_zero,
    deviceEnablePeerAccess=_nothing, _deviceEnsurePeerAccess=_nothing,
    malloc=_malloc, mallocAsync=_malloc, free=_free, freeAsync=_free, hostAlloc=lambda size, *_: _c.calloc(size, 1),
    freeHost=lambda address: _c.free(address) and None,
    memcpy=_copy_and_wait, memcpyAsync=_copy, memset=_fill, memsetAsync=_fill,
    streamSynchronize=_wait, deviceSynchronize=_wait, eventSynchronize=_wait,
    streamQuery=_nothing, streamDestroy=_nothing, streamCreate=_handle, streamCreateWithFlags=_handle,
    streamCreateWithPriority=_handle, streamIsCapturing=lambda *_: int(capturing), streamGetFlags=_zero, streamGetPriority=_zero,
    eventCreate=_handle, eventCreateWithFlags=_handle, eventDestroy=_nothing, eventRecord=_nothing, eventQuery=_nothing,
    eventElapsedTime=lambda *_: 0.0)
_DRIVER = dict(
    moduleLoadData=_handle, moduleLoad=_handle, moduleUnload=_nothing, moduleGetFunction=_handle, moduleGetGlobal=_zero,
    launchKernel=_launch, ctxGetCurrent=lambda: 1, ctxSetCurrent=_nothing, ctxGetDevice=_zero, funcGetAttribute=_zero,
    funcSetAttribute=_nothing, occupancyMaxPotentialBlockSize=lambda *_: (64, 512),
    occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: 4)

_TYPES = {"int": ctypes.c_int, "intptr_t": ctypes.c_ssize_t, "size_t": ctypes.c_size_t, "float": ctypes.c_float,
          "unsigned int": ctypes.c_uint, "PyObject *": ctypes.py_object, "cudaMemcpyKind": ctypes.c_int}
_python = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_python.PyCapsule_GetName.restype = ctypes.c_char_p
_python.PyCapsule_GetName.argtypes = [ctypes.py_object]
_kept = []  # what C holds a pointer to must never be freed, not even at exit
_python.Py_IncRef(ctypes.py_object(_kept))
_exiting = []
atexit.register(_exiting.append, True)


def install():
    """Replace the functions above in CuPy's runtime and driver modules, for C and for Python callers."""
    for module, functions in ((runtime, _RUNTIME), (driver, _DRIVER)):
        for name, function in functions.items():
            _replace(module, name, function)


def _replace(module, name, function):
    """The C signature is the name of the capsule: 'intptr_t (size_t, int __pyx_skip_dispatch)'."""
    signature = _python.PyCapsule_GetName(module.__pyx_capi__[name])
    returns, _, arguments = signature.decode().rstrip(")").partition("(")
    returns = returns.strip()
    arguments = [argument.strip() for argument in arguments.split(",") if argument.strip() != "void"]
    own = sum(not argument.startswith(("int __pyx_skip", "struct")) for argument in arguments)  # the others, behind, are Cython's
    types = [_TYPES["int"] if argument.startswith("int __pyx_skip") else _TYPES.get(argument, ctypes.c_void_p)
             for argument in arguments]
    at_exit = {"PyObject *": None, "float": 0.0}.get(returns, 0)

    def called_from_c(*values, exiting=_exiting):
        if exiting:  # the interpreter is being taken apart: leak
            return at_exit
        return function(*values[:own])

    constant = function in (_nothing, _zero)  # called several times per launch, so without the detour
    pointer = ctypes.PYFUNCTYPE(_TYPES[returns], *types)(function if constant else called_from_c)
    capsule = _python.PyCapsule_New(ctypes.cast(pointer, ctypes.c_void_p).value, signature, None)
    module.__pyx_capi__[name] = capsule
    _kept.extend((pointer, signature, capsule))
    _python.Py_IncRef(ctypes.py_object(pointer))
    if hasattr(module, name):
        setattr(module, name, lambda *arguments, **_: function(*arguments))
