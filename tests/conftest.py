"""The option --slow, and the fixture `xp`: every numerical test runs on NumPy, and as it is on CuPy where that works."""

import os

import numpy as np
import pytest

from ep.backend import device_module
from ep.errors import EPError

pytest.register_assert_rewrite("helpers", "cases")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow to run it"))


@pytest.fixture(scope="session", params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """numpy, and cupy where a GPU works with it (REQUIRE_GPU=1: its absence is a failure, not a reason to skip)."""
    if request.param == "numpy":
        return np
    try:
        return device_module("cuda")
    except EPError as error:
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail(f"REQUIRE_GPU=1, but {error}")
        pytest.skip(str(error))
