"""Objects, versions, history, selectors."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from typing import Any

import pytest

from gke_sandbox.local.apiserver.errors import StatusError
from gke_sandbox.local.apiserver.resources import CONFIG_MAPS, JOBS, PODS, ResourceType
from gke_sandbox.local.apiserver.selectors import Selector
from gke_sandbox.local.objects import Calendar, IdGenerator, Key
from gke_sandbox.local.store import History, Store, StoreChange

NOW = datetime(2026, 11, 22, 21, 20, 9, 750_000, tzinfo=timezone.utc)


def new_store() -> Store:
    return Store(Calendar(lambda: NOW), IdGenerator(random.Random(1)))


def add(
    store: Store, name: str, served: ResourceType = CONFIG_MAPS, namespace: str = "default", **more: Any
) -> Key:
    metadata = {"name": name, "namespace": namespace, **more}
    obj = {"kind": served.kind, "apiVersion": served.api_version, "metadata": metadata}
    store.create(served, store.prepare(obj))
    return Key(served.plural, namespace, name)


def changed(store: Store, key: Key, **metadata: Any) -> None:
    obj = store.get(key)
    assert obj is not None
    store.update(key, {**obj, "metadata": {**obj["metadata"], **metadata}})


def test_resource_versions_grow_with_every_change_of_any_kind() -> None:
    store = new_store()
    first, second = add(store, "a"), add(store, "b", JOBS)
    changed(store, first, labels={"x": "1"})
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in (store.get(second), store.get(first)) if obj]
    assert versions == [store.revision - 1, store.revision]


def test_an_update_without_changes_has_no_effect() -> None:
    store = new_store()
    key = add(store, "a")
    before = store.revision
    changed(store, key)
    assert store.revision == before


def test_a_new_object_has_uid_creation_time_in_whole_seconds_and_generation_if_its_kind_counts_it() -> None:
    store = new_store()
    job, config = store.get(add(store, "a", JOBS)), store.get(add(store, "b"))
    assert job is not None
    assert config is not None
    assert job["metadata"]["creationTimestamp"] == "2026-11-22T21:20:09Z"
    assert len(job["metadata"]["uid"]) == 36
    assert job["metadata"]["generation"] == 1
    assert "generation" not in config["metadata"]


def test_a_name_can_be_used_once() -> None:
    store = new_store()
    add(store, "a")
    with pytest.raises(StatusError, match="already exists"):
        add(store, "a")
    add(store, "a", namespace="other")


def test_objects_are_listed_by_name_in_one_namespace_or_in_all() -> None:
    store = new_store()
    for name, namespace in (("b", "x"), ("a", "y"), ("c", "x"), ("a", "x")):
        add(store, name, namespace=namespace)
    assert [obj["metadata"]["name"] for obj in store.select(CONFIG_MAPS, "x")] == ["a", "b", "c"]
    assert len(store.select(CONFIG_MAPS)) == 4


def test_an_object_that_is_being_deleted_is_removed_with_its_last_finalizer() -> None:
    store = new_store()
    key = add(store, "a", finalizers=["x/y"])
    changed(store, key, deletionTimestamp="now", deletionGracePeriodSeconds=0)
    assert store.get(key) is not None
    changed(store, key, finalizers=[])
    assert store.get(key) is None


def test_a_pod_in_its_grace_period_stays_without_finalizers() -> None:
    store = new_store()
    key = add(store, "a", PODS)
    changed(store, key, deletionTimestamp="soon", deletionGracePeriodSeconds=1)
    assert store.get(key) is not None


def test_listeners_get_each_change_with_the_object_before_and_after() -> None:
    store = new_store()
    heard: list[StoreChange] = []
    store.listen(heard.append)
    key = add(store, "a")
    changed(store, key, labels={"x": "1"})
    store.remove(key)
    assert [change.type for change in heard] == ["ADDED", "MODIFIED", "DELETED"]
    assert heard[1].before is heard[0].object
    assert heard[2].object["metadata"]["resourceVersion"] == str(heard[2].revision)


def test_dependents_are_found_by_the_uid_of_their_owner() -> None:
    store = new_store()
    key = add(store, "a", ownerReferences=[{"uid": "u1"}, {"uid": "u2"}])
    assert store.dependents("u1") == store.dependents("u2") == [key]
    changed(store, key, ownerReferences=[{"uid": "u2"}])
    assert (store.dependents("u1"), store.dependents("u2")) == ([], [key])
    changed(store, key, ownerReferences=[{"uid": "u2"}, {"uid": "u2"}])
    store.remove(key)
    assert store.dependents("u2") == []


def change(revision: int) -> StoreChange:
    return StoreChange("ADDED", revision, Key("pods", "default", "a"), {}, None)


def test_history_continues_after_a_revision() -> None:
    history = History(window=10, revision=100)
    for revision in (101, 105, 109):
        history.append(change(revision))
    number = history.after(103)
    found = history.get(number)
    assert found is not None
    assert found.revision == 105
    assert history.get(history.end) is None


def test_history_drops_changes_beyond_its_window_and_reports_the_last_dropped_one() -> None:
    history = History(window=3, revision=100)
    for revision in range(101, 107):
        history.append(change(revision))
    assert history.expired_to == 103
    assert history.get(2) is None
    found = history.get(history.after(103))
    assert found is not None
    assert found.revision == 104


LABELS = {"app": "x", "tier": "front", "example.com/long": "v"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=x", True),
        ("app=y", False),
        ("app=x,tier=front", True),
        ("app=x,tier=back", False),
        ("example.com/long=v", True),
    ],
)
def test_label_selectors(selector: str, matches: bool) -> None:
    assert Selector.parse(selector, "").matches({"metadata": {"labels": LABELS}}) is matches


@pytest.mark.parametrize("selector", ["a b", "=x", "app in (x)", "app", "!app", "a=b=c", "app!=x", "app==x"])
def test_a_selector_of_another_form_is_a_bad_request(selector: str) -> None:
    for selectors in ((selector, ""), ("", selector)):
        with pytest.raises(StatusError, match="unable to parse requirement") as refused:
            Selector.parse(*selectors)
        assert (refused.value.code, refused.value.reason) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("metadata.name=a", True),
        ("status.phase=Running,spec.nodeName=node1", True),
        ("status.phase=Failed", False),
        ("involvedObject.name=p", True),
        ("spec.missing=x", False),
    ],
)
def test_field_selectors(selector: str, matches: bool) -> None:
    obj = {
        "metadata": {"name": "a"},
        "status": {"phase": "Running"},
        "spec": {"nodeName": "node1"},
        "involvedObject": {"name": "p"},
    }
    assert Selector.parse("", selector).matches(obj) is matches
