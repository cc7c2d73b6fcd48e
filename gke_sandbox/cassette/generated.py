"""Which names were generated in a recording, and the placeholders that take their places. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from .._fakes.api_request import ApiRequest, parse
from ..settings import SESSION_LABEL
from .model import Exchange, is_watch
from .placeholders import PLACEHOLDER, escape

__all__ = ["Names", "json_in", "request_of"]

# Of the server's bookkeeping and of its nodes: nothing that a client looks at.
_LEFT_OUT = frozenset(
    {"managedFields", "selfLink", "hostIP", "hostIPs", "podIP", "podIPs", "containerID", "imageID"}
)
# Random in each request, and nothing to match on.
_ANY_QUERY = frozenset({"timeoutSeconds"})
_INVOCATION = "adk.agent.google.com/invocation-id"
_UUID = r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
_ADDRESS = r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b"
# https://www.rfc-editor.org/rfc/rfc5737
_DOCUMENTATION = "192.0.2."
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_RUNNER_KEY = "runner"


def request_of(exchange: Exchange) -> ApiRequest:
    return parse(exchange.method, exchange.path, exchange.query, exchange.body)


def json_in(data: bytes) -> Any:
    """The JSON in `data`; None if it is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, (dict, list)) else None


class Names:
    """Which names were generated, and their placeholders."""

    def __init__(self, exchanges: Sequence[Exchange], began: datetime) -> None:
        self._began = began
        # By kind: what each name stands for.
        self._known: dict[str, dict[str, str]] = {}
        self._addresses: dict[str, str] = {}
        for exchange in exchanges:
            self._learn(exchange)
        answers = [value for exchange in exchanges for value in _answers(exchange)]
        for value in answers:
            self._learn_uids(value)
            self._learn_nodes(value)
        self._versions = _versions(exchanges, answers)
        # A program may speak of a node, or of an address: those are its own words.
        self._in_requests = self._compile(("job", "session", "uid"), ())
        self._in_answers = self._compile(("job", "session", "uid", "node"), (_ADDRESS,))

    def _learn(self, exchange: Exchange) -> None:
        request = request_of(exchange)
        body = json_in(exchange.body) if exchange.method == "POST" else None
        metadata = body.get("metadata") if isinstance(body, dict) else None
        if isinstance(metadata, dict) and request.plural in ("jobs", "configmaps"):
            self._name("session", (metadata.get("labels") or {}).get(SESSION_LABEL))
            self._name("invocation", (metadata.get("annotations") or {}).get(_INVOCATION))
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

    def _learn_uids(self, value: Any) -> None:
        for text in _all_texts(value, skip=_LEFT_OUT):
            for found in re.finditer(_UUID, text):
                self._name("uid", found.group())

    def _learn_nodes(self, value: Any) -> None:
        if isinstance(value, dict):
            node = value.get("nodeName")
            if isinstance(node, str):
                self._name("node", node)
            for item in value.values():
                self._learn_nodes(item)
        elif isinstance(value, list):
            for item in value:
                self._learn_nodes(item)

    def _compile(self, kinds: Iterable[str], more: Iterable[str]) -> re.Pattern[str]:
        known = {name for kind in kinds for name in self._known.get(kind, ())}
        named = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
        parts = [f"(?P<like>{PLACEHOLDER.pattern})"]
        if named:
            # A session is short enough to stand by chance within a longer word.
            parts.append(rf"(?<![0-9A-Za-z])(?P<name>{named})(?![0-9A-Za-z])")
        parts += [f"(?P<more{index}>{one})" for index, one in enumerate(more)]
        return re.compile("|".join(parts))

    def text(self, text: str, *, answer: bool) -> str:
        """`text` with placeholders; in answers, addresses become ones that are nobody's."""
        if answer and _TIME.fullmatch(text):
            return self._time(text)

        def one(found: re.Match[str]) -> str:
            if found["like"]:
                return escape(found)
            name = found.group()
            known = next((names[name] for names in self._known.values() if name in names), None)
            return known if known is not None else self._address(name)

        return (self._in_answers if answer else self._in_requests).sub(one, text)

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
        seconds = int((moment - self._began.replace(microsecond=0)).total_seconds())
        if fraction and seconds < 0:
            # -0.2 s is not -1 s and 0.8.
            return f"<time{seconds + float('0.' + fraction):+.{len(fraction)}f}s>"
        return f"<time{seconds:+d}{'.' + fraction if fraction else ''}s>"

    def value(self, value: Any, *, answer: bool) -> Any:
        """JSON with placeholders. In answers, what says nothing is left out."""
        if isinstance(value, str):
            return self.text(value, answer=answer)
        if isinstance(value, list):
            return [self.value(item, answer=answer) for item in value]
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for name, item in value.items():
            if answer and name in _LEFT_OUT:
                continue
            if name == "resourceVersion" and isinstance(item, str):
                found[name] = self._versions.get(item, item)
            elif name == _INVOCATION:
                found[name] = self._known.get("invocation", {}).get(item, item)
            elif name in ("data", "binaryData") and isinstance(item, dict):
                # What the client sent, in a server's echo too.
                found[name] = {key: self._content(key, text) for key, text in item.items()}
            else:
                found[self.text(name, answer=answer)] = self.value(item, answer=answer)
        return found

    def _content(self, key: str, text: Any) -> Any:
        return "<runner>" if key == _RUNNER_KEY else self.value(text, answer=False)

    def query(self, query: Mapping[str, str]) -> dict[str, str]:
        found = {}
        for name, value in query.items():
            if name in _ANY_QUERY:
                value = "<any>"
            elif name == "resourceVersion":
                value = self._versions.get(value, value)
            else:
                value = self.text(value, answer=False)
            found[name] = value
        return found


def _versions(exchanges: Sequence[Exchange], answers: Sequence[Any]) -> dict[str, str]:
    """Placeholders in the order of the versions, which a real server counts up."""
    seen = {version: None for value in answers for version in _all_versions(value)}
    seen.update(
        dict.fromkeys(each.query["resourceVersion"] for each in exchanges if "resourceVersion" in each.query)
    )
    seen.pop("0", None)
    seen.pop("", None)
    ordered: list[str] = list(seen)
    if all(version.isdecimal() for version in ordered):
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
        ordered.sort(key=int)
    return {version: f"<version-{number}>" for number, version in enumerate(ordered, 1)}


def _all_versions(value: Any) -> list[str]:
    if isinstance(value, list):
        return [version for item in value for version in _all_versions(item)]
    if not isinstance(value, dict):
        return []
    own = value.get("resourceVersion")
    inner = [version for name, item in value.items() if name not in _LEFT_OUT for version in _all_versions(item)]
    return [own, *inner] if isinstance(own, str) else inner


def _answers(exchange: Exchange) -> list[Any]:
    """The JSON that came back: one body, or a watch's events."""
    joined = b"".join(data for _, data in exchange.chunks)
    parts = joined.split(b"\n") if exchange.streamed and is_watch(exchange.query) else [joined]
    return [value for value in map(json_in, parts) if value is not None]


def _all_texts(value: Any, skip: frozenset[str] = frozenset()) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _all_texts(item, skip)]
    if isinstance(value, dict):
        return [
            text
            for name, item in value.items()
            if name not in skip
            for text in [str(name), *_all_texts(item, skip)]
        ]
    return []
