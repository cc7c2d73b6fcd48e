"""The cassettes in fixtures/: none is lost, none is of an older library; and none of any holds a secret."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from gke_sandbox.cassette import load
from gke_sandbox.cassette.format import write
from gke_sandbox.cassette.secrets import find_secret
from gke_sandbox.errors import CassetteError

from .clusters import FIXTURES
from .convert_recordings import CONTINUATIONS, CONVERSIONS
from .readme import table
from .renew_requests import renewed
from .table import SCENARIOS

# In google/: strings with the form of secrets.
MADE_UP = (
    "ya29.impersonated",
    base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMIIBtest\n-----END CERTIFICATE-----\n").decode(),
)
CASSETTES = sorted(FIXTURES.glob("*.yaml"))
ROOT = FIXTURES.parent
SHIPPED = [
    *CASSETTES,
    *sorted((ROOT / "tests").rglob("cassettes/*.yaml")),
    *sorted((ROOT / "examples").rglob("cassettes/*.yaml")),
]


def test_every_scenario_has_a_cassette_and_a_conversion_and_every_cassette_a_scenario() -> None:
    assert {path.stem for path in CASSETTES} == set(SCENARIOS) == {*CONVERSIONS, *CONTINUATIONS}


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
def test_a_cassette_has_the_source_of_its_recording(path: Path) -> None:
    header = load(path, scenario=path.stem).header
    assert header.server
    assert header.recorded_at
    assert header.recorded_with
    assert header.notes
    assert header.namespace


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
def test_a_cassettes_requests_are_those_that_this_library_sends_today(path: Path) -> None:
    cassette = load(path)
    changed = [
        step.name
        for step, today in zip(cassette.steps, renewed(cassette).steps, strict=True)
        if step.body != today.body
    ]
    assert changed == [], "run python -m tests.scenarios.renew_requests fixtures/"


def test_the_readme_lists_every_cassette_with_its_header() -> None:
    assert table(FIXTURES) in (FIXTURES / "README.md").read_text(encoding="utf-8"), (
        "run python -m tests.scenarios.readme"
    )


def others() -> list[Path]:
    return sorted(path for path in FIXTURES.rglob("*") if path.is_file() and path not in CASSETTES)


def refusal(path: Path) -> str:
    """Why a cassette would not be written today, empty if it would."""
    try:
        write(load(path))
    except CassetteError as error:
        return str(error)
    return ""


def test_no_cassette_contains_a_secret() -> None:
    assert {path.parent for path in SHIPPED} > {FIXTURES, ROOT / "tests" / "adk" / "cassettes"}
    texts = {path: find_secret(path.read_text(encoding="utf-8")) for path in SHIPPED}
    assert {path.name: secret for path, secret in texts.items() if secret} == {}
    refusals = {path: refusal(path) for path in SHIPPED}
    assert {path.name: message for path, message in refusals.items() if message} == {}


def test_no_other_file_in_fixtures_contains_a_secret() -> None:
    found = {}
    for path in others():
        text = re.sub("|".join(map(re.escape, MADE_UP)), "", path.read_text(encoding="utf-8"))
        found[path] = find_secret(text) or (find_secret(json.loads(text)) if path.suffix == ".json" else None)
    assert {path.name: secret for path, secret in found.items() if secret} == {}


def test_cassettes_contain_no_data_about_the_recorded_node() -> None:
    words = ("hostIP", "podIP", "containerID", "imageID", "managedFields", "uuid")
    for path in CASSETTES:
        text = path.read_text(encoding="utf-8")
        assert [word for word in words if f"{word}:" in text] == [], path.name
