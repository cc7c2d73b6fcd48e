"""The executor with the real google-adk. Skipped if it is not installed: see the extra `adk`."""

import warnings

import pytest

with warnings.catch_warnings():
    # Imported once, here, because the import is slow and causes warnings about its dependencies.
    warnings.simplefilter("ignore")
    pytest.importorskip("google.adk.runners", exc_type=ModuleNotFoundError)
