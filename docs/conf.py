"""The book: how Sphinx builds it.    sphinx-build -W docs build/book

Written by hand: index.md, theory/, code/. Made here, so that they cannot fall behind: gallery/ from examples/ (the header,
the figure of the same name, the source) and api/ from ep/*.py. Every other .md file in this folder is a page too.
Nothing comes from the network: MathJax is one file (tex-svg.js, no fonts) out of the package sphinx-mathjax-offline.
"""

import ast
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent, indent

from docutils import nodes
from sphinx.domains.math import MathDomain

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

project, author = "Equilibrium propagation for deep ConvNets", "the eqprop-convnets developers"
html_title = "Equilibrium propagation"
copyright = "the eqprop-convnets developers, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
suppress = []
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["_static", str(Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax/tex-svg.js")]
html_css_files = ["book.css"]
html_show_sphinx, html_copy_source, smartquotes = False, False, False
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "tex": {"macros": {"b": ["\\boldsymbol{#1}", 1], "d": "\\mathrm{d}"}}}
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True  # MAX_POOL, not the functions in it
autodoc_mock_imports = [name for name in ("cupy", "cupyx", "mpi4py") if find_spec(name) is None]
exclude_patterns = ["_build", "paper_table/*"]

TOOLS = {"predict", "trained"}  # examples that answer no question of their own
FIGURES = {"cifar10_sym_ep": ["run.png"]}  # examples whose figure has another name
CORE = ["nudging", "ops", "activations", "synapse", "cost", "vectorfield", "network", "phase", "dynamics", "eqprop", "bptt",
        "rbp", "gdu", "radius", "papers_code", "imperfections", "builders"]


class NumberedByLabel(MathDomain):
    """Equations carry the numbers that the comments of the code cite: the label of $$ ... $$ (3) is its number."""

    def note_equation(self, docname, labelid, location=None):
        super().note_equation(docname, labelid, location)
        self.equations[labelid] = (docname, int(labelid))


def literal(text):
    """Plain text -> reST: paragraphs that are laid out with spaces stay as they are, the others become prose."""
    out = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if re.search(r"\S  |^ ", paragraph, re.M):
            out += [".. code-block:: text", "   :class: laid-out", "", indent(dedent(paragraph), "   "), ""]
        else:
            prose = re.sub(r"([\\*|_])", r"\\\1", paragraph)
            prose = re.sub(r"(?<!\w)\\\*(\w[^*\\]*\w)\\\*(?!\w)", r"*\1*", prose)  # *this* stays emphasised
            out += [re.sub(r"`(.*?)`", lambda m: f"``{m[1]}``".replace("\\", ""), prose), ""]
    return "\n".join(out)


def write(folder, pages):
    """The files {name: text} of a folder that is made here, and no others; an unchanged one is not touched, nor built again."""
    (DOCS / folder).mkdir(exist_ok=True)
    for path in (DOCS / folder).iterdir():
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = DOCS / folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def gallery():
    """gallery/NAME.md for every example, and gallery/index.md, which shows them all: examples, tools, the laboratory."""
    pages, names = {}, []
    index = [["# Examples\n", "One question each. Run them from the repository's root.\n"], ["## Tools\n"],
             ["## The laboratory\n", "What measures and compares. Nothing else needs it.\n"]]
    parts = {path: 2 if path.parent.name == "laboratory" else int(path.stem in TOOLS)
             for path in sorted((ROOT / "examples").rglob("*.py"))}
    for path, part in sorted(parts.items(), key=lambda item: item[1]):
        question, figures, pages[f"{path.stem}.md"] = page(path)
        index[part] += [f"**[{question}]({path.stem}.md)**\n`{path.relative_to(ROOT)}`\n", *figures[:1]]
        names.append(f"{path.stem} <{path.stem}>")
    write("gallery", {**pages, "index.md": "\n".join([*sum(index, []), "```{toctree}", ":hidden:", *names, "```\n"])})


def page(path):
    """(question, [figure], page) of an example: question, header, figures, source."""
    module, name = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT)
    question, header = (ast.get_docstring(module) + "\n").split("\n", 1)
    stems = dict.fromkeys((path.stem, re.sub(r"^\d+_", "", path.stem)))  # 02_faces.py may have the figure faces.png
    candidates = FIGURES.get(path.stem, []) + [f"{folder}{stem}.png" for folder in ("", "figures/") for stem in stems]
    figures = [f"![{question}](../{name})\n" for name in candidates if (DOCS / name).exists()]
    return question, figures, "\n".join([
        f"# {question}\n", f"`{name}`\n", "```{eval-rst}", literal(header), "```\n", *figures,
        f"```{{literalinclude}} ../../{name}", ":language: python", ":lineno-match:",
        f":lines: {module.body[0].end_lineno + 1}-", "```\n"])


def api():
    """api/MODULE.md for every module, the core first and in reading order."""
    modules = sorted(".".join(path.relative_to(ROOT / "ep").with_suffix("").parts) for path in (ROOT / "ep").rglob("*.py"))
    modules = [m.removesuffix(".__init__") for m in modules if m != "__init__"]  # a door's page is that of its __init__.py
    modules = CORE + [m for m in modules if m not in CORE]
    of_door = {m: "   :no-members:\n" for m in modules if (ROOT / "ep" / m).is_dir()}  # they are on the pages of its modules
    pages = {f"{m}.md": f"# ep.{m}\n\n```{{eval-rst}}\n.. automodule:: ep.{m}\n{of_door.get(m, '')}```\n" for m in modules}
    write("api", {**pages, "index.md": "\n".join([
        "# API reference\n", "From the docstrings; `[source]` opens the lines themselves.\n",
        "```{eval-rst}\n.. automodule:: ep\n   :no-members:\n```\n", "```{toctree}", ":maxdepth: 1", *modules, "```\n"])})


def adopt(app, docname, source):
    """Pages written for a file browser: one without a title gets its name, a link to a folder becomes the folder's name."""
    folder = (DOCS / docname).parent
    if not source[0].startswith("#"):
        source[0] = f"# {docname.replace('_', ' ').capitalize()}\n\n{source[0]}"
    source[0] = re.sub(r"\[([^\]]+)\]\(([^):#]+)\)", lambda m: name_of(folder / m[2]) or m[0], source[0])


def name_of(folder):
    """A folder's path in the repository, as code; None if it is none."""
    return f"`{folder.resolve().relative_to(ROOT)}`" if folder.is_dir() else None


def enlarge(app, doctree):
    """Every figure links to its full size: Sphinx does so for those that have a width (book.css keeps their own)."""
    for image in doctree.findall(nodes.image):
        image["width"] = "100%"


def explorable(app, error):
    """The explorable page needs no Sphinx: it goes into the book as it is, and its link to the book becomes one to HTML."""
    if error is None and app.builder.format == "html":
        page = shutil.copytree(DOCS / "explore", Path(app.outdir) / "explore", dirs_exist_ok=True,
                               ignore=shutil.ignore_patterns("*.py", "*.json", "__pycache__")) / "index.html"
        page.write_text(page.read_text(encoding="utf-8").replace("../index.md", "../index.html"), encoding="utf-8")


def setup(app):
    app.add_domain(NumberedByLabel, override=True)
    app.connect("source-read", adopt)
    app.connect("doctree-read", enlarge)
    app.connect("build-finished", explorable)
    app.connect("autodoc-process-docstring", lambda app, what, name, obj, options, lines: lines.__setitem__(
        slice(None), literal("\n".join(lines)).split("\n")))
    gallery()
    api()
