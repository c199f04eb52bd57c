"""What a caller passes, as this package keeps it: Python numbers, arrays of a float type, constants. Else one sentence.

A NumPy number would end up in the description of a file, which JSON cannot write, or promote float32 arrays to float64; a word
such as "max" is accepted where a constant is expected, and stands for the constant of this name.
"""

import copy
import math
import operator
from typing import Any

import numpy as np

from .backend import array_module
from .errors import EPError


def whole(value, what, least=0):
    """A whole number of at least `least`, Python's or NumPy's, as a Python int. Raises EPError for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        raise EPError(f"{what}: expected a whole number, got {value!r}") from None
    if number < least:
        raise EPError(f"{what}: expected a whole number of at least {least}, got {number}")
    return number


def wholes(values, what, least=0):
    """A list of whole numbers."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise EPError(f"{what}: expected a list of whole numbers, got {values!r}")
    return [whole(value, what, least) for value in values]


def real(value, what, least=-math.inf, most=math.inf):
    """A finite real number from `least` to `most`, Python's or NumPy's, as a Python float. Raises EPError for anything else."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        limits = "" if least == -math.inf else f" of at least {least:g}" if most == math.inf else f" from {least:g} to {most:g}"
        raise EPError(f"{what}: expected a finite number{limits}, got {value!r}")
    return number


def by_layer(values, layers, what):
    """One positive number per layer, from a single one, from two (for the hidden layers and for the last), or from as many."""
    numbers = [real(value, what) for value in (values if np.ndim(values) else [values])]
    if len(numbers) == 1:
        numbers = numbers * layers
    if len(numbers) == 2 <= layers:
        numbers = [numbers[0]] * (layers - 1) + [numbers[1]]
    if len(numbers) != layers or not min(numbers) > 0:
        raise EPError(f"expected one positive {what}, two (hidden layers, classes), or one for each of the {layers} layers: got "
                      f"{values}")
    return numbers


def instance(value, kind, what):
    """The value itself. Raises EPError if it is of another class."""
    if not isinstance(value, kind):
        raise EPError(f"{what}: expected a {kind.__name__}, got {value!r}")
    return value


def named(value, table, what):
    """A constant of the table, if `value` is its name; another of its class as it is. Raises EPError for anything else."""
    if not isinstance(value, str):
        return instance(value, type(next(iter(table.values()))), f"{what} ({', '.join(table)}, or one of your own)")
    if value not in table:
        raise EPError(f"{what}: unknown '{value}', expected one of {', '.join(table)}")
    return table[value]


def arrayed(value, what, axes=1):
    """`value` as a NumPy array (or CuPy's, as it is) of at least so many axes, whose elements are counted by position.

    A list, or whatever has __array__ (a pandas Series, a torch tensor, an h5py data set) becomes one; a memory map is not copied.
    Raises EPError for anything else, such as a generator.
    """
    if array_module(value) is not np:
        return value
    if np.ma.is_masked(value):
        raise EPError(f"{what}: got a {type(value).__name__} with masked elements, and there is nothing to take for them: fill "
                      "them, or leave them out")
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, and what __array__ of other libraries raises, as of tensors on a GPU
        raise EPError(f"{what}: {type(value).__name__} cannot be made a NumPy array ({' '.join(str(error).split())})") from None
    if array.ndim < axes or array.dtype.kind in "OSUMm":  # objects, words, dates
        raise EPError(f"{what}: expected an array or a list of numbers, got {type(value).__name__}"
                      f"{f' of {array.dtype}' if array.ndim else ''}")
    return array


def floats(array, what, ndim):
    """An array of `ndim` axes of a float type: the array itself, or one made of a list. Raises EPError for anything else."""
    if not hasattr(array, "dtype"):
        try:
            array = np.asarray(array, dtype=float)
        except (TypeError, ValueError):
            raise EPError(f"{what}: expected an array of numbers, got {type(array).__name__}") from None
    if array.dtype.kind not in "fc" or array.ndim != ndim:
        raise EPError(f"{what}: expected an array of a float type with {ndim} axes, got {array.dtype} of shape "
                      f"{tuple(array.shape)}")
    return array


def check_derivatives(synapse: Any, seed: int = 0) -> None:
    """Are the drives and `hebbian` of a synapse the derivatives of its `phi`? By central differences at random states.

    And, but for a nonlinear one, are `linear_post` the adjoint of `drive_pre`, and `hebbian_down` the derivative of
    < pre, drive_pre(post) >? In float64, on the host; states are from 0 to 1. Raises EPError that names what is not.
    """
    synapse, rng = copy.deepcopy(synapse), np.random.default_rng(seed)
    theta = {name: np.asarray(w, dtype="float64") for name, w in synapse.parameters().items()}
    pre, post = (rng.random((3, *shape)) for shape in (synapse.pre_shape, synapse.post_shape))
    at = {"drive_pre": pre, "drive_post": post, **theta}
    along = {name: rng.standard_normal(a.shape) for name, a in at.items()}
    up, switches = synapse.drive_post(pre) if synapse.bilinear else (synapse.drive_post(pre, post), None)
    down = synapse.drive_pre(post, switches) if synapse.bilinear else synapse.drive_pre(pre, post)
    wrong = unfit(synapse, synapse.phi, at, along, {"drive_pre": down, "drive_post": up, **synapse.hebbian(pre, post, switches)})
    if synapse.bilinear and not wrong:
        claims = {"drive_pre": down, "drive_post": synapse.linear_post(pre, switches),
                  **{name: np.zeros_like(w) for name, w in theta.items()}, **synapse.hebbian_down(pre, post, switches)}
        wrong = unfit(synapse, lambda pre, post: (pre * synapse.drive_pre(post, switches)).reshape(3, -1).sum(1), at, along,
                      claims)
        names = {"drive_post": "linear_post (drive_post without the bias, the parameter b)"}
        wrong = [names.get(name, f"hebbian_down of {name}") for name in wrong]
    if wrong:
        raise EPError(f"{type(synapse).__name__}: not the derivative of its phi: {', '.join(wrong)} (see ep/synapse.py)")


def unfit(synapse, phi, at, along, claims, h=1e-5):
    """Names whose claim is not the slope of phi(pre, post), (3,), where what is `at` this name moves `along`."""
    theta, wrong = at.keys() - {"drive_pre", "drive_post"}, []

    def value(moved=None, by=0.0):
        now = {name: a + by * along[name] if name == moved else a for name, a in at.items()}
        for name in theta:
            setattr(synapse, name, now[name])
        return phi(now["drive_pre"], now["drive_post"])

    for name in at:
        slope, size = (value(name, h) - value(name, -h)) / (2 * h), abs(value()).max()  # the last puts theta back
        if fits := name in claims and np.shape(claims[name]) == along[name].shape:
            product = claims[name] * along[name]
            gap = product.sum() - slope.sum() if name in theta else product.reshape(3, -1).sum(1) - slope
            fits = abs(gap).max() <= 1e-6 * (size + abs(slope).max())
        wrong += [] if fits else [name]
    return wrong
