"""The package as a whole: what importing it costs, its rooms, its public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gke_sandbox

PACKAGE = Path(gke_sandbox.__file__).parent
RUN_TIME = ("anyio", "google.auth", "httpx", "yaml")

# Each room, and the rooms that it may import from: those below it.
ROOMS = {
    "errors": set(),
    "_version": set(),
    "names": set(),
    "quantity": set(),
    "protocol": set(),
    "runner": set(),
    "settings": {"errors", "names", "quantity", "protocol"},
    "payload": {"errors", "protocol", "settings"},
    "manifests": {"errors", "names", "payload", "quantity", "settings"},
    "result": {"protocol"},
    "diagnosis": set(),
    "transcript": {"protocol"},
    "kube": {"errors", "_version"},
    "local": {"errors", "kube", "names", "quantity"},
    "pods": {"errors", "kube"},
    "stream": {"result"},
    "leftovers": {"errors", "kube", "settings"},
    "inquiry": {"diagnosis", "errors", "kube"},
    "failures": {"diagnosis", "errors", "transcript"},
    "creation": {"errors", "kube", "manifests", "settings"},
    "deletion": {"creation", "errors", "kube"},
    "reading": {"errors", "kube", "manifests", "protocol", "transcript"},
    "execution": {
        "creation",
        "diagnosis",
        "errors",
        "failures",
        "inquiry",
        "kube",
        "manifests",
        "pods",
        "protocol",
        "reading",
        "result",
        "settings",
    },
    "cassette": {"_version", "errors", "kube", "manifests", "payload", "protocol", "settings"},
    "cluster": {"cassette", "errors", "kube", "local"},
    "pytest_plugin": {"cassette", "cluster", "errors"},
    "sandbox": {
        "cluster",
        "creation",
        "deletion",
        "errors",
        "execution",
        "manifests",
        "pods",
        "result",
        "settings",
        "stream",
    },
    "blocking": {"cluster", "deletion", "errors", "execution", "result", "sandbox", "stream"},
    "adk": {"blocking", "cluster", "diagnosis", "errors", "names", "quantity", "result", "settings"},
}


def fresh(code: str) -> str:
    """What `code` prints in a new interpreter."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout


def test_importing_the_package_imports_no_dependency_and_no_module_of_its_own() -> None:
    printed = fresh(
        "import sys, gke_sandbox\n"
        f"print([name for name in {RUN_TIME!r} if name in sys.modules])\n"
        "print(sorted(name for name in sys.modules if name.startswith('gke_sandbox.')))"
    )
    assert printed == "[]\n['gke_sandbox._version']\n"


def test_the_errors_and_the_settings_import_no_dependency() -> None:
    printed = fresh(
        "import sys\nfrom gke_sandbox import SpecError, Settings\n"
        f"print([name for name in {RUN_TIME!r} if name in sys.modules])"
    )
    assert printed == "[]\n"


def test_opening_a_local_sandbox_imports_neither_yaml_nor_google_auth() -> None:
    printed = fresh(
        "import sys\nfrom gke_sandbox import Sandbox, Cluster\nSandbox(Cluster.local())\n"
        "print([name for name in ('yaml', 'google.auth') if name in sys.modules])"
    )
    assert printed == "[]\n"


def test_every_public_name_is_there() -> None:
    missing = [name for name in gke_sandbox.__all__ if not hasattr(gke_sandbox, name)]
    assert missing == []


def test_the_lazy_names_are_those_of_all() -> None:
    lazy = {name for names in gke_sandbox._HOMES.values() for name in names}
    assert lazy == set(gke_sandbox.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sandbux'"):
        gke_sandbox.Sandbux  # noqa: B018


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported_rooms(module: Path) -> set[str]:
    """The rooms that a module imports from, at any depth, type checking included."""
    inside = module.relative_to(PACKAGE)
    rooms = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            depth = len(inside.parts) - node.level
            assert depth >= 0, f"{inside}: leaves the package"
            base = inside.parts[:depth]
            target = (*base, *(node.module or "").split(".")) if node.module else base
            rooms |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(name.split(".")[0] == "gke_sandbox" for name in names), f"{inside}: not relative"
    return rooms - {inside.parts[0].removesuffix(".py")}


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_below_it(module: Path) -> None:
    room = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__", "cli"):
        return
    assert imported_rooms(module) <= ROOMS[room]


def test_rooms_form_no_circle() -> None:
    order = list(ROOMS)
    for room, below in ROOMS.items():
        assert all(order.index(other) < order.index(room) for other in below), room


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_kube_and_the_transports_import_httpx_and_nothing_imports_asyncio(module: Path) -> None:
    tops = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add((node.module or "").split(".")[0])
    assert "asyncio" not in tops
    if module.relative_to(PACKAGE).parts[0] not in ("cassette", "kube", "local"):
        assert "httpx" not in tops


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_can_be_read_in_a_sitting(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 500


def test_a_room_that_may_be_imported_from_is_imported_from() -> None:
    """So that the table above says how the house is built, and no more."""
    used: dict[str, set[str]] = {}
    for module in modules():
        room = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
        used.setdefault(room, set()).update(imported_rooms(module))
    assert {room: below - used[room] for room, below in ROOMS.items() if below - used[room]} == {}
