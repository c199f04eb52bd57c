"""The shape of the package: who imports whom, how much of it there is, and that it stays readable."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

import ep

PACKAGE = Path(ep.__file__).parent
CORE = [  # the files that people read, lowest first
    {"errors"}, {"backend"}, {"checks"}, {"nudging", "npz"}, {"ops", "activations"}, {"synapse", "cost"}, {"vectorfield"},
    {"network", "phase"}, {"dynamics", "builders"}, {"eqprop", "bptt", "rbp"}, {"papers_code", "gdu", "radius", "imperfections"}]
DOORS = [  # everything else: exchangeable parts, data sets, training
    {"engine.winograd", "engine.blas", "engine.kernels", "datasets.augment", "datasets.download",
     "train.checkpoint", "train.machine", "train.curves", "train.watch", "train.claim", "train.step"},
    {"engine.cpu"}, {"engine.gpu", "datasets.pictures"},
    {"engine.graph", "train.optimizers", "datasets.dataset", "train.commandline"},
    {"engine", "datasets.synthetic", "datasets.cifar"}, {"datasets.folder", "datasets.arrays"},
    {"datasets.idx"}, {"datasets.choose"}, {"datasets"}, {"train.loop"},
    {"train.settings", "train.parallel", "train.equilibrium"}, {"train.experiment"}, {"train.runs"}, {"train.job"},
    {"train", "train.__main__", "datasets.__main__", "doctor"}]
LEVEL = {module: level for level, modules in enumerate([*CORE, *DOORS]) for module in modules}
FORBIDDEN_IN_THE_CORE = {"threading", "concurrent", "multiprocessing", "mpi4py", "argparse", "threadpoolctl", "queue"}


def modules():
    """{"dynamics": source, "engine.winograd": source, "engine": that of engine/__init__.py, ...}: all but ep/__init__.py."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if name:
            found[name] = path.read_text(encoding="utf-8")
    return found


MODULES = modules()
every_module = pytest.mark.parametrize("module", MODULES)


def imports(source, folder=""):
    """(modules of this package, top-level names of others) that a source in `folder` of the package imports, anywhere in it."""
    own, others, tree = set(), set(), ast.parse(source)
    for_hints = {part for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
                 for part in ast.walk(node)}  # nothing of it happens when the program runs
    for node in ast.walk(tree):
        if node in for_hints:
            continue
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "ep"):
            path = [part for part in (folder if node.level == 1 else "").split(".") if part]  # from . import, from .. import
            path += (node.module or "").split(".") if node.level else node.module.split(".")[1:]
            inside = ".".join(part for part in path if part)
            for alias in node.names:
                whole = f"{inside}.{alias.name}".lstrip(".")
                own.add(whole if whole in LEVEL or not inside else inside)
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package, _, inside = alias.name.partition(".")
                (own if package == "ep" else others).add(inside if package == "ep" else package)
    return own, others


def folder(module):
    """The folder that the module is in: "" for the core, "engine" for engine.winograd and for engine/__init__.py itself."""
    return module if module in ("engine", "datasets", "train") else module.rpartition(".")[0]


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
    """Imports in every form are seen, but for those that only a type checker makes; docstrings, comments, blanks are no code."""
    assert imports("if TYPE_CHECKING:\n    from .network import Network\nif x:\n    from . import cost") == ({"cost"}, set())
    source = ('"""Doc\nstring."""\n# comment\nimport os\n\ndef f(a,\n      b):\n    """Doc."""\n'
              '    from .ops import conv\n    return """x\n"""\n')
    assert code_lines(source) == {4, 6, 7, 9, 10, 11}
    assert imports(source + "from . import bptt\nimport ep.cost\nfrom ep.engine import x\nfrom numpy.lib import y") == (
        {"ops", "bptt", "cost", "engine"}, {"os", "numpy"})
    assert imports("from .winograd import x\nfrom ..ops import y\nfrom .. import bptt\nfrom . import kernels", "engine") == (
        {"engine.winograd", "ops", "bptt", "engine.kernels"}, set())


@every_module
def test_imports_go_downwards(module):
    """A file imports only from lower layers: no upward and no sideways import."""
    assert module in LEVEL, f"give {module} its place in CORE or DOORS"
    wrong = {other for other in imports(MODULES[module], folder(module))[0] if LEVEL.get(other, 99) >= LEVEL[module]}
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


@pytest.mark.parametrize("module", sorted(set().union(*CORE) & MODULES.keys()))
def test_the_core_has_no_threads_no_processes_and_no_command_line(module):
    """The core is what people read: mathematics on arrays."""
    assert not imports(MODULES[module])[1] & FORBIDDEN_IN_THE_CORE


def test_one_loop_over_steps():
    """Every relaxation, free or nudged, of any network, is dynamics.iterate; BPTT goes back through what that has kept."""
    found = set()
    for module in MODULES:
        if module.startswith(("train", "datasets", "doctor")):
            continue
        for function in ast.walk(ast.parse(MODULES[module])):
            if isinstance(function, ast.FunctionDef):
                loops = [ast.unparse(node.iter) for node in ast.walk(function) if isinstance(node, ast.For)]
                found |= {(module, function.name) for loop in loops if ".steps" in loop or loop.endswith("(trajectory)")}
    assert found == {("dynamics", "iterate"), ("bptt", "backward")}


def test_the_core_stands_alone(tmp_path):
    """A copy of it without the engine, data sets and training, in a process with NumPy alone, computes a gradient."""
    import shutil
    import subprocess
    import sys

    for module in set().union(*CORE) & MODULES.keys():
        (tmp_path / "ep").mkdir(exist_ok=True)
        shutil.copy(PACKAGE / f"{module}.py", tmp_path / "ep")
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "ep")
    program = """
import sys, numpy as np
for name in ("scipy", "matplotlib", "tqdm", "threadpoolctl", "pooch", "PIL"):
    sys.modules[name] = None  # importing it is an error
import ep
net = ep.convnet([4, 8], (8, 8, 1), 3)
x, y = np.random.default_rng(0).random((2, 8, 8, 1)), np.array([0, 2])
found = ep.eqprop_gradient(net, x, y, ep.Phases(30, 20), nudging=ep.Nudging.symmetric(0.1)).gradient["1.W"]
print(abs(found).max() > 0, len([name for name in sys.modules if name.startswith("ep.")]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env={"PATH": ""})
    assert done.stdout.split() == ["True", str(len(set().union(*CORE) & MODULES.keys()))], done.stderr


def test_every_folder_is_installed():
    """The packages that setup.cfg finds are those that hold the files: a wheel without ep/engine would import nothing."""
    configuration = (PACKAGE.parent / "setup.cfg").read_text(encoding="utf-8")
    assert "packages = find:" in configuration and "include = ep*" in configuration
    assert {path.parent for path in PACKAGE.rglob("*.py")} == {path.parent for path in PACKAGE.rglob("__init__.py")}
