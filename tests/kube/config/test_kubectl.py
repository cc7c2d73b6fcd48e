"""Compare the parser with kubectl, if it is installed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.config.kubeconfig import Entry, merge, parse

KUBECTL = shutil.which("kubectl")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")]

# Short texts, so that names collide, and texts that YAML reads as other types if they are not in quotes.
texts = st.sampled_from(
    ["", "a", "b", "c", "n", "yes", "12", "0x1", "~", "1:30", "2024-01-01", "a b", "ü", "[", "<<"]
)
names = st.sampled_from(["a", "b", "c", ""])
paths = st.sampled_from(["", "x", "./x", "../x", "x/../y", "/x"])
data = st.binary(max_size=4).map(lambda found: base64.b64encode(found).decode())
# Wrong types are rare: a file with one of them only shows that it is refused.
wrong = st.sampled_from([5, 1.5, True, ["a"], {"a": "b"}])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    optional = {key.replace("_", "-"): field | st.none() for key, field in fields.items()}
    return st.fixed_dictionaries({}, optional=optional)


clusters = some(
    server=texts,
    tls_server_name=texts,
    insecure_skip_tls_verify=st.booleans(),
    certificate_authority=paths,
    certificate_authority_data=data,
    proxy_url=texts,
    disable_compression=st.booleans(),
)
users = some(
    client_certificate=paths,
    client_certificate_data=data,
    client_key=paths,
    client_key_data=data,
    token=texts,
    tokenFile=paths,
    username=texts,
    password=texts,
    **{"as": texts},
    as_uid=texts,
    as_groups=st.lists(texts | st.none(), max_size=2),
    as_user_extra=st.dictionaries(names, st.lists(texts, max_size=2), max_size=2),
    exec=some(
        command=paths,
        args=st.lists(texts, max_size=2),
        env=st.lists(some(name=texts, value=texts), max_size=2),
        apiVersion=st.just("client.authentication.k8s.io/v1"),
        installHint=texts,
        provideClusterInfo=st.booleans(),
        interactiveMode=texts,
    ),
)
contexts = some(cluster=names, user=names, namespace=texts)


def entries(kind: str, fields: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({"name": names}, optional={kind: fields | st.none()}), max_size=3)


def spoil(document: dict[str, Any], where: int, value: object) -> dict[str, Any]:
    """Return the same with one field of another type, selected by number."""
    places = [
        (entry[kind], key)
        for kind in ("cluster", "user", "context")
        for entry in document.get(f"{kind}s") or []
        if entry.get(kind)
        for key in entry[kind]
    ]
    if places:
        holder, key = places[where % len(places)]
        holder[key] = value
    return document


good = some(
    apiVersion=st.just("v1"),
    kind=st.just("Config"),
    current_context=names,
    clusters=entries("cluster", clusters),
    users=entries("user", users),
    contexts=entries("context", contexts),
    unknown=texts,
)
documents = st.one_of(good, good, good, st.builds(spoil, good, st.integers(0, 50), wrong))


def kubectl(files: list[Path], *arguments: str) -> dict[str, Any] | None:
    """Return the files as kubectl reads them, or None if it refuses them."""
    assert KUBECTL is not None
    environ = {**os.environ, "KUBECONFIG": os.pathsep.join(map(str, files))}
    done = subprocess.run(
        [KUBECTL, "config", "view", "--raw", "--output=json", *arguments],
        env=environ,
        capture_output=True,
        timeout=50,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def as_kubectl_writes(entry: Entry) -> dict[str, Any]:
    """Return an entry as client-go writes it: data in base64, no empty fields, unresolved paths."""
    entry_fields = {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for key, value in entry.fields.items()
    }
    return without_empty_fields(entry_fields)


def without_empty_fields(value: Any) -> Any:
    """Return the value without empty fields, which Go leaves out in most places."""
    if not isinstance(value, dict):
        return value
    kept = {key: without_empty_fields(item) for key, item in value.items()}
    kept.pop("env", None)
    return {key: item for key, item in kept.items() if item not in ("", None, False, [], {})}


def told_by_kubectl(view: dict[str, Any], kind: str) -> dict[str, Any]:
    return {entry["name"]: without_empty_fields(entry[kind]) for entry in view[f"{kind}s"] or []}


@settings(max_examples=60)
@given(st.lists(documents, min_size=1, max_size=3))
def test_kubeconfigs_are_read_and_merged_as_in_kubectl(
    tmp_path_factory: pytest.TempPathFactory, found: list[Any]
) -> None:
    directory = tmp_path_factory.mktemp("kubeconfigs")
    files = [directory / str(number) / "config" for number in range(len(found))]
    for file, document in zip(files, found, strict=True):
        file.parent.mkdir()
        file.write_text(yaml.safe_dump(document))
    view = kubectl(files)
    try:
        config = merge([parse(file.read_bytes(), file) for file in files])
    except ConfigError:
        assert view is None
        return
    assert view is not None
    assert config.current_context == view["current-context"]
    for kind, ours in (("cluster", config.clusters), ("user", config.users), ("context", config.contexts)):
        assert {name: as_kubectl_writes(entry) for name, entry in ours.items()} == told_by_kubectl(view, kind)


@settings(max_examples=40)
@given(good, names)
def test_a_context_resolves_as_in_kubectl(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, Any], current: str
) -> None:
    file = tmp_path_factory.mktemp("kubeconfig") / "config"
    file.write_text(yaml.safe_dump({**found, "current-context": current}))
    view = kubectl([file], "--minify")
    try:
        config = parse(file.read_bytes(), file)
    except ConfigError:
        assert view is None
        return
    context = config.contexts.get(current) if current else None
    referred = None if context is None else {"cluster": context.text("cluster"), "user": context.text("user")}
    there = {"cluster": config.clusters, "user": config.users}
    # This command requires all entries, even a user, without which a request would be anonymous.
    if referred is None or any(name and name not in there[kind] for kind, name in referred.items()):
        assert view is None
        return
    assert view is not None
    assert told_by_kubectl(view, "context") == {current: as_kubectl_writes(config.contexts[current])}
    for kind, name in referred.items():
        wanted = {name: as_kubectl_writes(there[kind][name])} if name else {}
        assert told_by_kubectl(view, kind) == wanted
