"""Write api.json, what rules.py knows of CuPy: every public name, and the parameters that it takes. Needs CuPy, but no GPU.

    python tests/cupy_on_cpu/write_api.py

{namespace: {name: entry}}, an entry being "object", ["ufunc", number of inputs, has .at] or the list of parameters, in which
"*" stands for any number of positional ones and "**" for any keyword. Parameters are read from signatures or, for compiled
functions, from the first line of the docstring.
"""

import importlib
import inspect
import json
import re
from pathlib import Path

NAMESPACES = ("cupy", "cupy.linalg", "cupy.lib.stride_tricks")


def parameters(function):
    try:
        signature = inspect.signature(function).parameters.values()
        return [{p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, p.name) for p in signature]
    except (TypeError, ValueError):
        first_line = ((function.__doc__ or "").strip().splitlines() or [""])[0]
    found = re.match(r"[\w.]+\((.*?)\)( ->.*)?$", first_line)
    if not found:
        return ["**"]
    declared = [re.split("[=:]", text)[0].split() for text in re.split(r",(?![^(]*\))", found[1])]  # "int axis=0" -> axis
    names = [words[-1] for words in declared if words and words[-1] not in ("/", "*", "self")]
    return ["**" if name.startswith("*") else name for name in names]


def entry(value):
    if type(value).__name__ == "ufunc":
        return ["ufunc", value.nin, getattr(value, "_scatter_op", None) is not None]
    return parameters(value) if callable(value) and not inspect.isclass(value) else "object"


def main():
    import cupy
    api = {name: {attribute: entry(value) for attribute, value in vars(importlib.import_module(name)).items()
                  if not attribute.startswith("_") and not inspect.ismodule(value)} for name in NAMESPACES}
    api["ndarray"] = {name: entry(getattr(cupy.ndarray, name)) for name in dir(cupy.ndarray) if not name.startswith("_")}
    spaces = []  # one name per line
    for space, names in api.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(names[name])}" for name in sorted(names)]
        spaces.append(f' "{space}": {{\n' + ",\n".join(lines) + "\n }")
    text = f'{{\n "version": "{cupy.__version__}",\n' + ",\n".join(spaces) + "\n}\n"
    Path(__file__).with_name("api.json").write_text(text)


if __name__ == "__main__":
    main()
