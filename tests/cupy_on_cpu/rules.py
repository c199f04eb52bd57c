"""Pytest plugin: a `cupy` made of NumPy that keeps CuPy's rules and refuses what CuPy refuses.

Names and keywords are the real CuPy's (api.json, by write_api.py). Beyond those it knows these rules:

    no mixing             a NumPy array is refused by every operator and function but array, asarray ... and as an index
    no conversion         np.asarray(device array) raises; np.exp(device array) goes to CuPy's exp if there is one
    results stay          a reduction gives a 0-d device array, never a Python or NumPy number
    looking is counted    float(a), bool(a), int(a), a.item(), a.get(), formatting: +1 in `seen["synchronisations"]`;
                          a result whose length only its numbers tell, too: a[mask], nonzero, unique (LENGTH_BY_NUMBERS)
    empty is not zero     empty() is filled with NaN
    no overruns           an index beyond the end raises, where CuPy silently wraps it around

It has no ElementwiseKernel: where code asks for that, it takes its NumPy path. Importing this module installs it.
"""

import builtins
import json
import operator
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np

API = json.loads(Path(__file__).with_name("api.json").read_text())
TAKES_HOST_ARRAYS = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}
LENGTH_BY_NUMBERS = {"argwhere", "bincount", "compress", "extract", "flatnonzero", "intersect1d", "nonzero", "setdiff1d",
                     "trim_zeros", "union1d", "unique"}
seen = Counter()  # "synchronisations", and the dtype of every result
cupy = types.ModuleType("cupy", "CuPy's rules on NumPy (tests/cupy_on_cpu/rules.py)")


def look():
    seen["synchronisations"] += 1


# --- from NumPy to the device and back --------------------------------------------------------------------------------


def to_device(result):
    """What NumPy returned, as CuPy would return it."""
    if isinstance(result, (np.ndarray, np.generic)):
        if np.asarray(result).dtype.kind in "OUSMm" or result.dtype.itemsize > 16:
            raise ValueError(f"Unsupported dtype {result.dtype}")
        seen[result.dtype.name] += 1
        return ndarray(np.asarray(result))
    return type(result)(map(to_device, result)) if type(result) in (tuple, list) else result


def to_numpy(a):
    """The arguments of a function, for NumPy. Raises TypeError for an array of the host."""
    if isinstance(a, ndarray):
        return a.numbers
    if isinstance(a, np.ndarray):
        raise TypeError(f"Unsupported type {type(a)} (an array of the host was given to a device function)")
    if isinstance(a, dict):
        return {key: to_numpy(value) for key, value in a.items()}
    return type(a)(map(to_numpy, a)) if type(a) in (tuple, list) else a


def as_index(i):
    """CuPy takes arrays of the device and of the host, and lists."""
    return tuple(map(as_index, i)) if isinstance(i, tuple) else i.numbers if isinstance(i, ndarray) else i


def look_for_length(name, arguments):
    """Count a wait for those functions whose result is as long as the numbers say."""
    if name in LENGTH_BY_NUMBERS or (name == "where" and len(arguments) == 1):
        look()


def is_mask(i):
    return isinstance(i, tuple) and any(map(is_mask, i)) or isinstance(i, ndarray) and i.dtype == bool


def check_keywords(name, parameters, keywords):
    unknown = [] if "**" in parameters else [key for key in keywords if key not in parameters]
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument '{unknown[0]}' (CuPy {API['version']})")


# --- the array --------------------------------------------------------------------------------------------------------


class ndarray:
    """An array of the device; `numbers` is the NumPy array that holds it, for this file alone."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, numbers):
        self.numbers = numbers

    T = property(lambda self: ndarray(self.numbers.T))
    real = property(lambda self: ndarray(self.numbers.real))
    imag = property(lambda self: ndarray(self.numbers.imag))

    def get(self):
        look()
        return self.numbers.copy()

    def set(self, a):
        self.numbers[...] = a

    def item(self):
        look()
        return self.numbers.item()

    def tolist(self):
        look()
        return self.numbers.tolist()

    def __format__(self, how):
        look()
        return format(self.numbers[()], how)

    def __len__(self):
        return len(self.numbers)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return repr(self.numbers)

    def __getitem__(self, i):
        if is_mask(i):
            look()
        return to_device(self.numbers[as_index(i)])

    def __setitem__(self, i, value):
        if isinstance(value, (list, np.ndarray)) and np.ndim(value):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if is_mask(i) and isinstance(value, ndarray) and value.ndim:  # as many numbers as the mask is true
            look()
        self.numbers[as_index(i)] = to_numpy(value) if isinstance(value, ndarray) else value

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
                        "explicitly.")

    def __array_ufunc__(self, ufunc, method, *arguments, **keywords):  # np.exp(device array)
        function = getattr(cupy, ufunc.__name__, None)
        return NotImplemented if function is None or method != "__call__" else function(*arguments, **keywords)

    def __array_function__(self, function, types_, arguments, keywords):  # np.stack(device arrays)
        twin = getattr(cupy, function.__name__, None)
        if twin is None or function.__module__ != "numpy":
            raise TypeError(f"no implementation found for {function.__name__!r} on cupy.ndarray")
        return twin(*arguments, **keywords)

    def __getattr__(self, name):
        parameters = API["ndarray"].get(name)
        if not isinstance(parameters, list):
            raise AttributeError(f"'ndarray' object has no attribute '{name}' (CuPy {API['version']})")

        def method(*arguments, **keywords):
            check_keywords(name, parameters, keywords)
            look_for_length(name, arguments)
            return to_device(getattr(self.numbers, name)(*to_numpy(arguments), **to_numpy(keywords)))
        return method


def _attribute(name):
    return property(lambda self: getattr(self.numbers, name))


def _conversion(kind):
    def convert(self):
        look()
        return kind(self.numbers)
    return convert


def _binary(function, in_place=False, reflected=False):
    def of_two(self, other):
        if not isinstance(other, (ndarray, int, float, complex, np.generic, np.ndarray)):
            return NotImplemented
        pair = (to_numpy(other), self.numbers) if reflected else (self.numbers, to_numpy(other))
        result = function(*pair)
        return self if in_place else to_device(result)
    return of_two


def _unary(function):
    return lambda self: to_device(function(self.numbers))


for _name in ("shape", "dtype", "ndim", "size", "strides", "nbytes", "itemsize", "flags"):
    setattr(ndarray, _name, _attribute(_name))
for _name in ("bool", "int", "float", "complex"):
    setattr(ndarray, f"__{_name}__", _conversion(getattr(builtins, _name)))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    _function = getattr(operator, f"__{_name}__")
    setattr(ndarray, f"__{_name}__", _binary(_function))
    setattr(ndarray, f"__r{_name}__", _binary(_function, reflected=True))
    if _name != "matmul":
        setattr(ndarray, f"__i{_name}__", _binary(getattr(operator, f"__i{_name}__"), in_place=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(ndarray, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(getattr(operator, _name)))


# --- the functions ----------------------------------------------------------------------------------------------------


def _function_like(name, entry, numpys):
    is_ufunc = entry[0] == "ufunc" if entry else False
    parameters = {"out", "dtype", "casting"} if is_ufunc else entry

    def function(*arguments, **keywords):
        check_keywords(name, parameters, keywords)
        look_for_length(name, arguments)
        if name in TAKES_HOST_ARRAYS:
            arguments = [a.numbers if isinstance(a, ndarray) else a for a in arguments]
        elif is_ufunc and any(isinstance(a, (list, tuple)) for a in arguments):
            raise TypeError(f"Unsupported type {list} ({name} takes arrays of the device)")
        else:
            arguments = to_numpy(arguments)
        result = numpys(*arguments, **to_numpy(keywords))
        if name.startswith("empty") and result.dtype.kind in "fc":
            result[...] = np.nan
        return to_device(np.asarray(result) if isinstance(result, bool) else result)
    return function


def _filled(module, space, numpys):
    for name, entry in API[space].items():
        if hasattr(numpys, name):
            twin = getattr(numpys, name)
            setattr(module, name, twin if entry == "object" else _function_like(name, entry, twin))
    return module


def _install():
    _filled(cupy, "cupy", np)
    cupy.__version__, cupy.ndarray, cupy.newaxis = API["version"], ndarray, None
    cupy.asnumpy = lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a)
    cupy.linalg = _filled(types.ModuleType("cupy.linalg"), "cupy.linalg", np.linalg)
    tricks = _filled(types.ModuleType("cupy.lib.stride_tricks"), "cupy.lib.stride_tricks", np.lib.stride_tricks)
    cupy.lib = types.SimpleNamespace(stride_tricks=tricks)
    never = type("CompileException", (Exception,), {})
    stream = types.SimpleNamespace(synchronize=look)
    cupy.cuda = types.SimpleNamespace(compiler=types.SimpleNamespace(CompileException=never), get_current_stream=lambda: stream)
    sys.modules["cupy"] = cupy


_install()
