"""The cassettes in fixtures/: none is lost, none holds a secret, none is of an older library."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import pytest

from gke_sandbox.cassette import load
from gke_sandbox.cassette.secret import Secret, find_secret, find_secret_in_log

from .clusters import FIXTURES
from .convert_recordings import CONVERSIONS
from .readme import table
from .renew_requests import renewed
from .table import SCENARIOS

# In google/: they have the form of secrets and are none.
MADE_UP = (
    "ya29.impersonated",
    base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMIIBtest\n-----END CERTIFICATE-----\n").decode(),
)
CASSETTES = sorted(FIXTURES.glob("*.yaml"))


def test_every_scenario_has_a_cassette_and_a_conversion_and_every_cassette_a_scenario() -> None:
    assert {path.stem for path in CASSETTES} == set(SCENARIOS) == set(CONVERSIONS)


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
def test_a_cassette_says_where_it_came_from(path: Path) -> None:
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


def test_the_readme_lists_every_cassette_as_its_header_says() -> None:
    assert table(FIXTURES) in (FIXTURES / "README.md").read_text(encoding="utf-8"), (
        "run python -m tests.scenarios.readme"
    )


def others() -> list[Path]:
    return sorted(path for path in FIXTURES.rglob("*") if path.is_file() and path not in CASSETTES)


def secrets_of(path: Path) -> list[Secret | None]:
    """In a cassette's text, in its values, and in what its logs say, however that was cut into chunks."""
    steps = load(path).steps
    values = [find_secret(dataclasses.asdict(step)) for step in steps]
    logs = [find_secret_in_log(b"".join(chunk.data for chunk in step.answer.chunks or ())) for step in steps]
    return [find_secret(path.read_text(encoding="utf-8")), *values, *logs]


def test_no_file_in_fixtures_holds_a_secret() -> None:
    found = {path: secrets_of(path) for path in CASSETTES}
    for path in others():
        text = re.sub("|".join(map(re.escape, MADE_UP)), "", path.read_text(encoding="utf-8"))
        found[path] = [find_secret(text), find_secret(json.loads(text)) if path.suffix == ".json" else None]
    assert {
        path.name: [secret for secret in secrets if secret] for path, secrets in found.items() if any(secrets)
    } == {}


def test_what_the_recordings_knew_of_their_node_is_not_there() -> None:
    words = ("hostIP", "podIP", "containerID", "imageID", "managedFields", "uuid")
    for path in CASSETTES:
        text = path.read_text(encoding="utf-8")
        assert [word for word in words if f"{word}:" in text] == [], path.name
