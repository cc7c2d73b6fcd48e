"""Fixtures for tests that read files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .config.kubeconfigs import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file, bytes as they are and anything else as YAML, and return its path."""

    def write(content: object, name: str = "config") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
        return path

    return write
