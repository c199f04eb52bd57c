"""The shape of the package: who imports whom, how much of it there is, and that it stays readable."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

import ep

PACKAGE = Path(ep.__file__).parent
LAYERS = [  # lowest first; a module imports from lower layers only (modules that do not exist yet are absent)
    {"errors"}, {"backend", "nudging", "npz"}, {"ops", "activations"}, {"synapse", "cost"}, {"vectorfield"},
    {"network"}, {"dynamics"}, {"eqprop", "bptt"}, {"rbp"},
    {"compare", "optim", "checkpoint", "winograd", "kernels", "synthetic", "commandline"}, {"data", "fast"},
    {"training", "idx"}, {"parallel"}, {"runs", "doctor"}]
CORE = set().union(*LAYERS[:9])
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
FORBIDDEN_IN_THE_CORE = {"threading", "concurrent", "multiprocessing", "mpi4py", "argparse", "threadpoolctl", "queue"}
MODULES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"}
every_module = pytest.mark.parametrize("module", MODULES)


def imports(source):
    """(modules of this package, top-level names of others) that a source imports, anywhere in it."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "ep"):
            inside = node.module if node.level else node.module.partition(".")[2]
            own |= {inside.split(".")[0]} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package, _, inside = alias.name.partition(".")
                (own if package == "ep" else others).add(inside.split(".")[0] if package == "ep" else package)
    return own, others


def code_lines(source):
    """The numbers of the lines that hold code: no blanks, comments, docstrings."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def test_the_tools_of_this_file():
    """Imports in every form are seen; docstrings, comments and blanks are no code."""
    source = ('"""Doc\nstring."""\n# comment\nimport os\n\ndef f(a,\n      b):\n    """Doc."""\n'
              '    from .ops import conv\n    return """x\n"""\n')
    assert code_lines(source) == {4, 6, 7, 9, 10, 11}
    assert imports(source + "from . import bptt\nimport ep.cost\nfrom ep.data import x\nfrom numpy.lib import y") == (
        {"ops", "bptt", "cost", "data"}, {"os", "numpy"})


@every_module
def test_imports_go_downwards(module):
    """A file imports only from lower layers: no upward and no sideways import."""
    assert module in LEVEL, f"give ep/{module}.py its place in LAYERS"
    wrong = {other for other in imports(MODULES[module])[0] if LEVEL.get(other, 99) >= LEVEL[module]}
    assert not wrong


@every_module
def test_only_backend_names_cupy(module):
    """Everyone else asks an array for its module."""
    names = {node.value for node in ast.walk(ast.parse(MODULES[module])) if isinstance(node, ast.Constant)}
    named = "cupy" in names or "cupyx" in names or imports(MODULES[module])[1] & {"cupy", "cupyx"}
    assert bool(named) == (module == "backend")


@every_module
def test_no_function_is_longer_than_a_screen(module):
    """At most 40 lines of code in a function."""
    lines = code_lines(MODULES[module])
    long = {node.name: size for node in ast.walk(ast.parse(MODULES[module])) if isinstance(node, ast.FunctionDef)
            if (size := sum(node.lineno <= n <= node.end_lineno for n in lines)) > 40}
    assert not long


@pytest.mark.parametrize("module", sorted(CORE & MODULES.keys()))
def test_the_core_has_no_threads_no_processes_and_no_command_line(module):
    """The core is what people read: mathematics on arrays."""
    assert not imports(MODULES[module])[1] & FORBIDDEN_IN_THE_CORE


@pytest.mark.parametrize("part,limit", [("core", 900), ("periphery", 1500)])
def test_size(part, limit):
    """The core is at most 900 lines of code, all the rest at most 1500."""
    sizes = {m: len(code_lines(source)) for m, source in MODULES.items() if (m in CORE) == (part == "core")}
    assert sum(sizes.values()) <= limit, sizes


def test_the_fast_path_stays_small():
    """fast.py has at most 250 lines of code: a reader can compare it with dynamics.py."""
    assert len(code_lines(MODULES["fast"])) <= 250
