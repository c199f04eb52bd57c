"""The README and the book say what is true: their code runs, what they name exists, and CI calls the README's commands.

A fenced block in `python` or `bash` runs, by itself, in an empty folder (bash: in the repository). A `text` block right after it
is what it prints. A word behind the language says why a block does not run: ```bash long, gpu, or processes (several of them).
"""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ep.train.settings import OPTIONS, flag

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name not in ("gallery", "api"))]
REASONS = {"long", "gpu", "processes"}
TEXT = {path: path.read_text(encoding="utf-8") for path in PAGES}
BLOCK = re.compile(r"^```(python|bash)(?: (\w+))?\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.S | re.M)
BLOCKS = {path: BLOCK.findall(text) for path, text in TEXT.items()}  # [(language, reason, code, output)]
CODE = [pytest.param(path, *block, id=f"{path.name}-{k}") for path in PAGES for k, block in enumerate(BLOCKS[path], start=1)]
SOURCES = {folder: {str(path.relative_to(ROOT / folder).with_suffix("")): path.read_text(encoding="utf-8")
                    for path in (ROOT / folder).rglob("*.py")} for folder in ("ep", "examples", "tests")}
every_block = pytest.mark.parametrize("path,language,reason,code,output", CODE)
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@pytest.mark.slow
@every_block
def test_code_runs_and_prints_what_the_page_says(path, language, reason, code, output, tmp_path, monkeypatch):
    """Each block by itself; the marked ones are left out, and only for a reason that is known."""
    assert not reason or reason in REASONS, f"unknown reason '{reason}' in {path.name}: expected one of {sorted(REASONS)}"
    if reason:
        pytest.skip(f"marked as {reason}")
    if language == "bash":
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    else:
        monkeypatch.chdir(tmp_path)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, {"__name__": "__main__"})
        printed = out.getvalue()
    if output:
        assert printed == output


@pytest.mark.slow
def test_the_loop_of_ones_own_learns(tmp_path, monkeypatch):
    """Ten lines of training on one's own arrays: it learns, and saves what it says."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(next(code for _, _, code, _ in BLOCKS[ROOT / "docs" / "code" / "your_own_images.md"] if "train_epoch" in code), names)
    assert names["accuracy"] > 0.95
    assert (tmp_path / "network.npz").exists()


def test_ci_calls_the_test_command_of_the_readme():
    """The README's first bash block: the main job, then the tests exactly as CI runs them."""
    main_job, tests = next(code for language, _, code, _ in BLOCKS[README] if language == "bash").strip().splitlines()
    assert tests == "pip install -e '.[test]' && pytest"
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert main_job.endswith("python examples/cifar10_sym_ep.py")


@every_page
def test_commands_name_scripts_and_options_that_exist(path):
    """Every `python examples/X.py --option` of a page, run or not: the script is there, and the option is somewhere."""
    settings = " ".join(f'"{flag(name)}"' for name in OPTIONS)
    sources = "\n".join([settings, *SOURCES["ep"].values(), *SOURCES["examples"].values()])
    for script, rest in re.findall(r"python3? (examples/[\w/]+\.py)([^`\n#&|]*)", TEXT[path]):
        assert (ROOT / script).exists(), script
        for option in re.findall(r"--[a-z][a-z-]+", rest):
            assert f'"{option}"' in sources, f"{script} {option}"


@every_page
def test_tests_that_are_named_exist(path):
    """A page that says which test checks a claim names a function, or a file, of this folder."""
    functions = set(re.findall(r"^def (test_\w+)", "\n".join(SOURCES["tests"].values()), re.M))
    assert not set(re.findall(r"\btest_\w+", TEXT[path])) - functions - SOURCES["tests"].keys()


def test_every_equation_number_of_the_code_is_in_the_book():
    """Comments cite (1), (2) ...; the book has each of these labels once, in this order along the pages of its contents."""
    cited = {int(n) for text in SOURCES["ep"].values() for n in [
        *re.findall(r"equations? \((\d+)\)", text), *re.findall(r"   \((\d+)\)$", text, re.M)]}
    pages = [TEXT[ROOT / "docs" / f"{page}.md"] for page in re.findall(r"^theory/\w+$", TEXT[ROOT / "docs" / "index.md"], re.M)]
    labels = [int(n) for page in pages for n in re.findall(r"^\$\$ \((\d+)\)$", page, re.M)]
    assert labels == list(range(1, len(labels) + 1))
    assert len(cited) >= 8 and cited <= set(labels)
