"""The executor with the real google-adk. Skipped where that is not installed: see the extra `adk`."""

import warnings

import pytest

with warnings.catch_warnings():
    # Its imports warn of its own dependencies, and it is slow: it is loaded once, here.
    warnings.simplefilter("ignore")
    pytest.importorskip("google.adk.runners", exc_type=ModuleNotFoundError)
