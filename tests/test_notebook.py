"""The notebook runs from its first cell to its last, learns, and shows its figures; it is committed without outputs."""

import json
import re
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


def test_it_is_committed_without_outputs():
    cells = json.loads(PATH.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5 and not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path):
    """In a kernel of its own, in an empty folder: five figures, most images right, at T as at the fixed point, cosines near 1."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(PATH, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    printed = "".join(output.get("text", "") for output in outputs)
    at_T, settled = (float(re.search(rf"{when}: ([\d.]+)% right", printed)[1])
                     for when in ("after 2 sweeps", "at the fixed point"))
    assert min(at_T, settled) > 90 and abs(at_T - settled) < 2, printed
    assert float(re.search(r"smallest cosine with the exact gradient: ([\d.]+)", printed)[1]) > 0.98, printed
