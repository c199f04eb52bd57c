"""Choosing OpenBLAS's kernels: from given texts, never from the machine at hand."""

import pytest

from ep.openblas import choose, core_type

ZEN5 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nflags\t\t: fpu avx2 avx512f avx512dq avx512bw avx512vl\n"


@pytest.mark.parametrize("cpuinfo,expected", [
    (ZEN5, "SkylakeX"),
    (ZEN5.replace(" avx512vl", ""), None),
    (ZEN5.replace("AuthenticAMD", "GenuineIntel"), None),  # OpenBLAS knows those, and has better kernels for some
    ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n", None),
    ("", None),
])
def test_only_amd_with_avx512_is_changed(cpuinfo, expected):
    assert core_type(cpuinfo) == expected


def test_what_is_set_already_stays(tmp_path):
    """The variable is set only if nobody else has, NumPy is not there yet, and the file can be read."""
    (tmp_path / "cpuinfo").write_text(ZEN5)
    for environ, modules, file, expected in (
            ({}, {}, "cpuinfo", "SkylakeX"), ({"OPENBLAS_CORETYPE": "Zen"}, {}, "cpuinfo", "Zen"),
            ({}, {"numpy": None}, "cpuinfo", None), ({}, {}, "missing", None)):
        choose(environ, modules, tmp_path / file)
        assert environ.get("OPENBLAS_CORETYPE") == expected
