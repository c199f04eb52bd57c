"""OpenBLAS on processors that it does not know: with AVX-512 but unnamed, it falls back to kernels of half the speed.

NumPy's OpenBLAS (0.3.31) takes its Haswell kernels, AVX2 only, on an AMD processor of family 26: sgemm at 139 GFLOP/s a
thread, where the AVX-512 kernels reach 269 (docs/performance.md). The environment variable OPENBLAS_CORETYPE chooses, if it is
set before NumPy is imported: `import ep` sets it on such processors, unless it is set already or NumPy is there first.
"""

import os
import sys
from pathlib import Path

AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}  # what OpenBLAS's SkylakeX kernels use


def core_type(cpuinfo):
    """What to set OPENBLAS_CORETYPE to for the processor that the text of /proc/cpuinfo describes; None: leave it."""
    fields = dict(line.replace("\t", "").split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    amd = fields.get("vendor_id", "").strip() == "AuthenticAMD"
    return "SkylakeX" if amd and set(fields.get("flags", "").split()) >= AVX512 else None


def choose(environ=os.environ, modules=sys.modules, cpuinfo="/proc/cpuinfo"):
    """Set OPENBLAS_CORETYPE where it helps and still can."""
    if "OPENBLAS_CORETYPE" in environ or "numpy" in modules:
        return
    try:
        chosen = core_type(Path(cpuinfo).read_text(encoding="utf-8"))
    except OSError:  # not Linux
        return
    if chosen:
        environ["OPENBLAS_CORETYPE"] = chosen


choose()
