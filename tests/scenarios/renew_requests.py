"""Update the requests in cassettes to those of this version, and keep the responses.

Use it if the manifests have changed and neither the raw recordings nor a live cluster are available. Run it from
the root of the repository::

    python -m tests.scenarios.renew_requests fixtures/
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gke_sandbox._wire.manifests import Manifests, build, build_waiting
from gke_sandbox._wire.payload import Payload, runner_text
from gke_sandbox._wire.program import Program
from gke_sandbox.cassette import Cassette, load, save
from gke_sandbox.cassette.model import Step
from gke_sandbox.cassette.stdin_request import readable_stdin
from gke_sandbox.settings import Settings

from .table import IDLE_TIMEOUT, SCENARIOS

__all__ = ["main", "renewed"]

_SESSION, _UID = "session-0", "uid-0"


def renewed(cassette: Cassette) -> Cassette:
    """Return the cassette with the Jobs and ConfigMaps that this version sends."""
    made = {of: _manifests(cassette, of) for of in _jobs(cassette)}
    return replace(cassette, steps=tuple(_renewed(step, made.get(step.job)) for step in cassette.steps))


def _jobs(cassette: Cassette) -> list[str]:
    return list(dict.fromkeys(step.job for step in cassette.steps if step.job))


def _manifests(cassette: Cassette, of: str) -> Manifests:
    scenario = SCENARIOS[cassette.header.scenario]
    settings = Settings().override(**scenario.all_settings)
    codes = [
        step.body["data"]["code_0"] if _kind(step) == "ConfigMap" else step.body["code"]
        for step in cassette.steps
        if step.job == of and (_kind(step) == "ConfigMap" or step.sends_request)
    ]
    runs = scenario.runs
    if len(runs) > 1:
        runs = tuple(run for run in runs if run.code in codes)
    program = Program(code=runs[0].code, files=dict(runs[0].files))
    if scenario.warm:
        made = build_waiting(settings, name=_name(of), session=_SESSION, idle_timeout=IDLE_TIMEOUT)
        return replace(made, request=Payload(program, settings).attach_request(settings.env))
    return build(settings, program, name=_name(of), session=_SESSION)


def _renewed(step: Step, made: Manifests | None) -> Step:
    if made is not None and step.sends_request:
        return replace(step, body=readable_stdin(made.request))
    if made is None or step.method != "POST":
        return step
    owners = step.body["metadata"].get("ownerReferences") or [{}]
    body = made.job if _kind(step) == "Job" else made.config_map(_UID)
    names = {_name(step.job): step.job, _SESSION: "<session-1>", _UID: owners[0].get("uid", "")}
    if "data" in body:
        body = {**body, "data": {**body["data"], "runner": "<runner>"}}
    names[runner_text()] = "<runner>"
    return replace(step, body=_replaced(body, names))


def _replaced(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, placeholder in names.items():
        text = text.replace(json.dumps(name), json.dumps(placeholder))
    return json.loads(text)


def _kind(step: Step) -> str:
    return str(step.body.get("kind", "")) if isinstance(step.body, dict) else ""


def _name(of: str) -> str:
    return f"the-{of[1:-1]}"


def main(arguments: Sequence[str]) -> None:
    for path in sorted(Path(arguments[0]).glob("*.yaml")):
        save(renewed(load(path)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
