"""The package as a whole: the cost of its import, its layers, its public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import gke_sandbox

PACKAGE = Path(gke_sandbox.__file__).parent
RUN_TIME = ("anyio", "google.auth", "httpx", "yaml")

# Each layer (a module or a package at the root), and the layers above it that it may import from.
LAYERS = {
    "_version": set(),
    "errors": set(),
    "kube": {"_version", "errors"},
    "_checks": {"errors", "kube"},
    "_output_limits": {"_checks", "errors"},
    "_setting_names": set(),
    "settings": {"_checks", "_output_limits", "_setting_names", "errors", "kube"},
    "_wire": {"_checks", "_output_limits", "errors", "kube", "settings"},
    "result": {"_wire", "errors"},
    "_diagnosis": {"_wire", "errors", "kube"},
    "_event_loop": {"errors"},
    "_exit_codes": {"result"},
    "_run_log": {"errors", "result"},
    "_stream": {"_event_loop", "result"},
    "_engine": {"_diagnosis", "_output_limits", "_wire", "errors", "kube", "result", "settings"},
    "_fakes": set(),
    "local": {"_fakes", "errors", "kube"},
    "cassette": {"_fakes", "_version", "_wire", "errors", "kube", "settings"},
    "cluster": {"_checks", "cassette", "errors", "kube", "local"},
    "pytest_plugin": {"cassette", "cluster", "errors"},
    "_telemetry": {"_version", "errors", "result", "settings"},
    "_open_sandbox": {
        "_engine",
        "_event_loop",
        "_telemetry",
        "_wire",
        "cluster",
        "errors",
        "result",
        "settings",
    },
    "_run": {
        "_open_sandbox",
        "_run_log",
        "_telemetry",
        "_wire",
        "errors",
        "kube",
        "result",
        "settings",
    },
    "sandbox": {
        "_checks",
        "_engine",
        "_open_sandbox",
        "_run",
        "_stream",
        "_wire",
        "cluster",
        "errors",
        "result",
        "settings",
    },
    "_loop_thread": {"_engine", "errors", "sandbox"},
    "sync": {"_loop_thread", "_stream", "_wire", "cluster", "errors", "result", "sandbox", "settings"},
    "adk": {
        "_checks",
        "_diagnosis",
        "_exit_codes",
        "_setting_names",
        "cluster",
        "errors",
        "kube",
        "result",
        "settings",
        "sync",
    },
}

# Import cycles between modules. Remove a line when you have broken its cycle; never add one.
KNOWN_CYCLES: list[set[str]] = []


def fresh(code: str) -> str:
    """Return the output of `code` in a new interpreter."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout


def test_importing_the_package_imports_no_dependency_and_no_other_module() -> None:
    printed = fresh(
        "import sys, gke_sandbox\n"
        f"print([name for name in {RUN_TIME!r} if name in sys.modules])\n"
        "print(sorted(name for name in sys.modules if name.startswith('gke_sandbox.')))"
    )
    assert printed == "[]\n['gke_sandbox._version']\n"


def test_the_errors_and_the_settings_import_no_dependency() -> None:
    printed = fresh(
        "import sys\nfrom gke_sandbox import SpecError\nfrom gke_sandbox.settings import Settings\n"
        f"print([name for name in {RUN_TIME!r} if name in sys.modules])"
    )
    assert printed == "[]\n"


def test_opening_a_local_sandbox_imports_neither_yaml_nor_google_auth() -> None:
    printed = fresh(
        "import sys\nfrom gke_sandbox import Sandbox, Cluster\nSandbox(Cluster.local())\n"
        "print([name for name in ('yaml', 'google.auth') if name in sys.modules])"
    )
    assert printed == "[]\n"


def test_every_public_name_exists() -> None:
    missing = [name for name in gke_sandbox.__all__ if not hasattr(gke_sandbox, name)]
    assert missing == []


def test_the_lazy_names_are_those_in_all() -> None:
    lazy = {name for names in gke_sandbox._EXPORTS.values() for name in names}
    assert lazy == set(gke_sandbox.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sandbux'"):
        gke_sandbox.Sandbux  # noqa: B018


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in modules()}
by_module = pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "__init__")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def imported_modules(name: str) -> set[str]:
    """Return the modules of the package that a module imports, also lazily and for type checking."""
    path = MODULES[name]
    own_package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    own_package = [part for part in own_package if part]
    imported = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.level:
            depth = len(own_package) - (node.level - 1)
            assert depth >= 0, f"{name}: imports from outside the package"
            base = [*own_package[:depth], *(node.module or "").split(".")] if node.module else own_package[:depth]
            for alias in node.names:
                full = ".".join([*base, alias.name])
                imported.add(full if full in MODULES else ".".join(base))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(each.split(".")[0] == "gke_sandbox" for each in names), f"{name}: not relative"
    return imported - {name}


def layer(name: str) -> str:
    return name.split(".")[0]


def imported_layers(name: str) -> set[str]:
    return {layer(each) for each in imported_modules(name)} - {layer(name)}


@by_module
def test_a_module_imports_only_from_the_layers_allowed(name: str) -> None:
    if layer(name) in ("", "__main__", "cli"):
        return
    assert imported_layers(name) <= LAYERS[layer(name)]


def test_every_layer_imports_only_from_layers_above_it_in_the_table() -> None:
    order = list(LAYERS)
    for each, allowed in LAYERS.items():
        upward = {other for other in allowed if order.index(other) >= order.index(each)}
        assert not upward, each


def test_an_allowed_layer_is_imported() -> None:
    """The table contains no unused entries."""
    used: dict[str, set[str]] = {}
    for name in MODULES:
        used.setdefault(layer(name), set()).update(imported_layers(name))
    assert {each: allowed - used[each] for each, allowed in LAYERS.items() if allowed - used[each]} == {}


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components with more than one module."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reach[name] if name in reach.get(other, ())}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def test_modules_import_each_other_in_one_direction_only() -> None:
    """Cycles between modules, imports for type checking included. A package's own modules may import it lazily."""
    graph = {name: imported_modules(name) & MODULES.keys() - {""} for name in MODULES if name}
    by_name = sorted(cycles(graph), key=min)
    assert by_name == sorted(KNOWN_CYCLES, key=min)


@by_module
def test_only_kube_and_the_transports_import_httpx_and_only_one_module_imports_asyncio(name: str) -> None:
    tops = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add((node.module or "").split(".")[0])
    if name != "_event_loop":
        assert "asyncio" not in tops
    if layer(name) not in ("_fakes", "cassette", "kube", "local"):
        assert "httpx" not in tops


@by_module
def test_a_module_has_at_most_500_lines(name: str) -> None:
    # The runner is one file, because it is sent as one.
    limit = 800 if name == "_wire.runner" else 500
    assert len(MODULES[name].read_text().splitlines()) <= limit
