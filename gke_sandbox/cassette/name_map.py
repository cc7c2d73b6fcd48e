"""The generated names of a recording and their placeholders; the fields that are not recorded. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from .._fakes.api_request import ApiRequest, parse
from .._wire.payload import env_variable
from ..settings import INVOCATION_ANNOTATION, SESSION_LABEL
from .model import Exchange
from .placeholders import PLACEHOLDER, escape_literal

__all__ = ["NameMap", "parse_json", "request_of"]

# Bookkeeping of the server and its nodes, which no client uses.
_IGNORED_FIELDS = frozenset(
    {"managedFields", "selfLink", "hostIP", "hostIPs", "podIP", "podIPs", "containerID", "imageID"}
)
# Random in each request.
_IGNORED_QUERY = frozenset({"timeoutSeconds"})
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_UUID_LENGTH = 36
_ADDRESS = re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
_WORD = re.compile(r"[0-9A-Za-z]+")
# Text that looks like a placeholder, or characters of which names are made.
_TOKEN = re.compile(rf"(?P<like>{PLACEHOLDER.pattern})|[0-9A-Za-z][0-9A-Za-z._-]*")
# https://www.rfc-editor.org/rfc/rfc5737
_DOCUMENTATION = "192.0.2."
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_RUNNER_KEY = "runner"
_RUNNER_VARIABLE = env_variable(_RUNNER_KEY)


def request_of(exchange: Exchange) -> ApiRequest:
    """Return the parsed API request of an exchange."""
    return parse(exchange.method, exchange.path, exchange.query, exchange.body)


def parse_json(data: bytes) -> Any:
    """Return the JSON object or array in `data`. Return None for other data."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, (dict, list)) else None


class NameMap:
    """The generated names of a recording, and their placeholders."""

    def __init__(self, exchanges: Sequence[Exchange], responses: list[list[Any]], start: datetime) -> None:
        self._start = start
        # By kind: the placeholder of each name.
        self._known: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, str] = {}
        for exchange in exchanges:
            self._learn(exchange)
        parts = _parts(responses)
        self._versions = _versions(exchanges, parts)
        for name, value in parts:
            for text in (name, value):
                if isinstance(text, str) and len(text) >= _UUID_LENGTH:
                    for found in _UUID.finditer(text):
                        self._name("uid", found.group())
            if name == "nodeName":
                self._name("node", value)
        self._in_requests = self._placeholders("job", "session", "uid")
        self._in_responses = self._placeholders("job", "session", "uid", "node")
        self._texts: dict[tuple[str, bool], str] = {}

    def _learn(self, exchange: Exchange) -> None:
        request = request_of(exchange)
        body = parse_json(exchange.body) if exchange.method == "POST" else None
        metadata = body.get("metadata") if isinstance(body, dict) else None
        if isinstance(metadata, dict) and request.plural in ("jobs", "configmaps"):
            self._name("session", (metadata.get("labels") or {}).get(SESSION_LABEL))
            self._name("invocation", (metadata.get("annotations") or {}).get(INVOCATION_ANNOTATION))
            if request.plural == "jobs":
                self._name("job", metadata.get("name"))
        if request.plural == "jobs" and request.name:
            self._name("job", request.name)
        selector = exchange.query.get("labelSelector", "")
        label, _, value = selector.partition("=")
        if label == SESSION_LABEL:
            self._name("session", value)

    def _name(self, kind: str, value: Any) -> None:
        known = self._known.setdefault(kind, {})
        if isinstance(value, str) and value:
            known.setdefault(value, f"<{kind}-{len(known) + 1}>")

    def _placeholders(self, *kinds: str) -> _Placeholders:
        known: dict[str, str] = {}
        for kind in kinds:
            for name, placeholder in self._known.get(kind, {}).items():
                known.setdefault(name, placeholder)
        return _Placeholders(known)

    def text(self, text: str, *, response: bool) -> str:
        """Return `text` with placeholders.

        In responses addresses become those of the documentation range. Programs may contain the name of a node, or
        an address: in requests those stay as they are.
        """
        found = self._texts.get((text, response))
        if found is None:
            found = self._texts[text, response] = self._replaced(text, response)
        return found

    def _replaced(self, text: str, response: bool) -> str:
        if response and _TIME.fullmatch(text):
            return self._time(text)
        placeholders = self._in_responses if response else self._in_requests

        def replace(found: re.Match[str]) -> str:
            if found["like"]:
                return escape_literal(found)
            return placeholders.replace(found.group(), self._address if response else None)

        return _TOKEN.sub(replace, text)

    def _address(self, address: str) -> str:
        if address in ("0.0.0.0", "127.0.0.1"):
            return address
        return self._addresses.setdefault(address, f"{_DOCUMENTATION}{len(self._addresses) % 254 + 1}")

    def _time(self, text: str) -> str:
        whole, _, fraction = text[:-1].partition(".")
        try:
            moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        except ValueError:
            return text
        seconds = int((moment - self._start.replace(microsecond=0)).total_seconds())
        found = f"<time{seconds:+d}{'.' + fraction if fraction else ''}s>"
        if fraction and seconds < 0:
            # -0.2 s is not -1 s and 0.8.
            found = f"<time{seconds + float('0.' + fraction):+.{len(fraction)}f}s>"
        # The zero of Go, in the year 1, is not a time of the recording.
        return found if PLACEHOLDER.fullmatch(found) else text

    def value(self, value: Any, *, response: bool) -> Any:
        """Return JSON with placeholders, in responses without the fields that no client uses."""
        if isinstance(value, str):
            return self.text(value, response=response)
        if isinstance(value, list):
            return [self.value(item, response=response) for item in value]
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for name, item in value.items():
            if response and name in _IGNORED_FIELDS:
                continue
            if name == "resourceVersion" and isinstance(item, str):
                found[name] = self._versions.get(item, item)
            elif name == INVOCATION_ANNOTATION:
                found[name] = self._known.get("invocation", {}).get(item, item)
            elif name == "value" and value.get("name") == _RUNNER_VARIABLE:
                found[name] = "<runner>"
            elif name in ("data", "binaryData") and isinstance(item, dict):
                # The content of a request, also where a response repeats it.
                found[name] = {key: self._content(key, text) for key, text in item.items()}
            else:
                found[self.text(name, response=response)] = self.value(item, response=response)
        return found

    def plain(self, value: Any) -> Any:
        """Return the JSON of a request on stdin with placeholders. A file may have the name of any field."""
        if isinstance(value, str):
            return self.text(value, response=False)
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {self.plain(name): self.plain(item) for name, item in value.items()}

    def _content(self, key: str, text: Any) -> Any:
        return "<runner>" if key == _RUNNER_KEY else self.value(text, response=False)

    def query(self, query: Mapping[str, str]) -> dict[str, str]:
        """Return the query of a request with placeholders."""
        found = {}
        for name, value in query.items():
            if name in _IGNORED_QUERY:
                value = "<any>"
            elif name == "resourceVersion":
                value = self._versions.get(value, value)
            else:
                value = self.text(value, response=False)
            found[name] = value
        return found


class _Placeholders:
    """The placeholders of names in a text, in time that does not depend on how many names there are."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        self._lengths = sorted({len(name) for name in known}, reverse=True)

    def replace(self, token: str, address: Callable[[str], str] | None) -> str:
        """Replace all names in a token, and its addresses by `address`. A name is not part of a longer word."""
        replaced, position = "", 0
        for word in _WORD.finditer(token):
            start = word.start()
            if start < position:
                continue
            end, new = self._name_at(token, start)
            found = _ADDRESS.match(token, start) if not end and address is not None else None
            if found is not None and address is not None:
                end, new = found.end(), address(found.group())
            if end:
                replaced += token[position:start] + new
                position = end
        return replaced + token[position:]

    def _name_at(self, token: str, start: int) -> tuple[int, str]:
        for length in self._lengths:
            end = start + length
            name = token[start:end]
            if name in self._known and not _WORD.match(token, end):
                return end, self._known[name]
        return 0, ""


def _versions(exchanges: Sequence[Exchange], parts: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """Return placeholders in the order of the versions, which a real server increments."""
    found = [value for name, value in parts if name == "resourceVersion" and isinstance(value, str)]
    found += (each.query["resourceVersion"] for each in exchanges if "resourceVersion" in each.query)
    ordered = [version for version in dict.fromkeys(found) if version not in ("", "0")]
    if all(version.isdecimal() for version in ordered):
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
        ordered.sort(key=int)
    return {version: f"<version-{number}>" for number, version in enumerate(ordered, 1)}


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return a value and all values in it, each with its name, without the fields that are not recorded."""
    found: list[tuple[str, Any]] = []
    left = [("", value)]
    while left:
        found.append(left.pop())
        part = found[-1][1]
        # The last part is taken first.
        if isinstance(part, dict):
            left += [pair for pair in part.items() if pair[0] not in _IGNORED_FIELDS][::-1]
        elif isinstance(part, list):
            left += [("", item) for item in part[::-1]]
    return found
