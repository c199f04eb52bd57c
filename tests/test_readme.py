"""The README's code runs, prints what it says, and its commands are the ones that CI calls."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_python_blocks_run(tmp_path, monkeypatch):
    """Every Python block runs by itself; the first one prints the text block that follows it; the second one learns."""
    monkeypatch.chdir(tmp_path)
    printed, names = [], {}
    for code in blocks("python"):
        out, names = io.StringIO(), {}
        with contextlib.redirect_stdout(out):
            exec(code, names)
        printed.append(out.getvalue())
    assert printed[0] == blocks("text")[0]
    assert names["accuracy"] > 0.95
    assert (tmp_path / "network.npz").exists()


def test_ci_calls_the_test_command_of_the_readme():
    main_job, tests = blocks("bash")[0].strip().splitlines()
    assert tests == "pip install -e '.[test]' && pytest"
    assert tests in (ROOT / ".ci" / "run").read_text()
    assert main_job.endswith("python examples/cifar10_sym_ep.py")
