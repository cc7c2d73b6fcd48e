"""The API server: verbs, errors, lists and permissions."""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox.local import Caller, Namespace, Rule

from ..kit import CONFIG_MAPS, JOBS, PODS, config_map, job, refusal, running

pytestmark = pytest.mark.anyio


# Creating: decoding and validation.


async def test_field_validation_decides_whether_an_unknown_field_is_an_error_or_a_warning() -> None:
    body = {**job(), "extra": 1}
    body["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    async with running() as kit:
        strict = await kit.client.post(JOBS, json=body, params={"fieldValidation": "Strict"})
        assert refusal(strict) == (
            400,
            "BadRequest",
            'Job in version "v1" cannot be handled as a Job: strict decoding error: unknown field '
            '"spec.template.spec.containers[0].imagee", unknown field "extra"',
        )
        warned = await kit.client.post(JOBS, json=body, params={"dryRun": "All"})
        assert warned.headers.get_list("warning") == [
            '299 - "unknown field \\"spec.template.spec.containers[0].imagee\\""',
            '299 - "unknown field \\"extra\\""',
        ]
        assert (warned.status_code, "extra" in warned.json()) == (201, False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"backoffLimit": "0"},
            "cannot unmarshal string into Go struct field Job.spec.backoffLimit of type int",
        ),
        ({"backoffLimit": 0.5}, "cannot unmarshal number into Go struct field Job.spec.backoffLimit of type int"),
        ({"suspend": "no"}, "cannot unmarshal string into Go struct field Job.spec.suspend of type bool"),
        (
            {"template": []},
            "cannot unmarshal array into Go struct field Job.spec.template of type object",
        ),
        (
            {"template": {"spec": {"containers": [{"command": "python3"}]}}},
            "cannot unmarshal string into Go struct field "
            "Job.spec.template.spec.containers[0].command of type array",
        ),
        (
            {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}},
            "unable to parse quantity's suffix|quantities must match the regular expression",
        ),
    ],
)
async def test_a_value_of_the_wrong_type_is_a_bad_request(spec: dict[str, Any], message: str) -> None:
    body = job()
    body["spec"].update(spec)
    async with running() as kit:
        code, reason, text = refusal(await kit.client.post(JOBS, json=body))
    assert (code, reason) == (400, "BadRequest")
    assert text.startswith('Job in version "v1" cannot be handled as a Job: ')
    assert any(part in text for part in message.split("|"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "json parse error"),
        (b"[1]", "json parse error: not an object"),
        (b"[" * 100_000, "json parse error"),
    ],
)
async def test_a_body_that_does_not_contain_a_job_is_a_bad_request(content: bytes, message: str) -> None:
    async with running() as kit:
        code, reason, text = refusal(await kit.client.post(JOBS, content=content))
    assert (code, reason) == (400, "BadRequest")
    assert message in text


@pytest.mark.parametrize(
    ("change", "field", "detail"),
    [
        ({"container": {"image": ""}}, "containers[0].image", "Required value"),
        ({"container": {"name": "a.b"}}, "containers[0].name", "must not contain dots"),
        (
            {"container": {"volumeMounts": [{"name": "x", "mountPath": "/x"}]}},
            "containers[0].volumeMounts[0].name",
            'Not found: "x"',
        ),
        ({"pod": {"restartPolicy": "Always"}}, "restartPolicy", 'supported values: "Never"'),
        ({"pod": {"runtimeClassName": ""}}, "runtimeClassName", "a lowercase RFC 1123 subdomain"),
    ],
)
async def test_an_invalid_pod_template_is_rejected_with_the_path_of_the_field(
    change: dict[str, Any], field: str, detail: str
) -> None:
    async with running() as kit:
        response = await kit.client.post(JOBS, json=job(**change))
    assert refusal(response)[:2] == (422, "Invalid")
    causes = response.json()["details"]["causes"]
    found = [cause["message"] for cause in causes if cause["field"] == f"spec.template.spec.{field}"]
    assert any(detail in message for message in found), causes


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ({"backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
        ({"activeDeadlineSeconds": -5}, "spec.activeDeadlineSeconds: Invalid value: -5"),
    ],
)
async def test_an_invalid_job_is_rejected(spec: dict[str, Any], detail: str) -> None:
    async with running() as kit:
        assert detail in refusal(await kit.client.post(JOBS, json=job(**spec)))[2]


@pytest.mark.parametrize(
    ("metadata", "detail"),
    [
        ({}, 'metadata.name: Invalid value: ""'),
        ({"name": "a" * 254}, "metadata.name: Invalid value"),
    ],
)
async def test_invalid_metadata_is_rejected(metadata: dict[str, Any], detail: str) -> None:
    async with running() as kit:
        response = await kit.client.post(CONFIG_MAPS, json={**config_map(), "metadata": metadata})
    assert detail in refusal(response)[2]


async def test_a_config_map_can_have_one_mebibyte_of_decoded_values() -> None:
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map("full", data={"a": "x" * 1_048_573}, binaryData={"b": "AAAA"}))
        over = await kit.client.post(CONFIG_MAPS, json=config_map("over", data={"a": "ä" * 524_289}))
        assert refusal(over)[0] == 422


async def test_quantities_are_returned_in_their_canonical_form() -> None:
    resources = {"limits": {"cpu": "1500m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}}
    async with running() as kit:
        created = await kit.create(JOBS, job(container={"resources": resources}))
    (container,) = created["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"cpu": "1500m", "memory": "1Gi"}, "requests": {"cpu": "500m"}}


async def test_creation_in_a_missing_namespace_fails() -> None:
    async with running() as kit:
        response = await kit.client.post(JOBS.replace("default", "nowhere"), json=job())
        assert refusal(response) == (404, "NotFound", 'namespaces "nowhere" not found')
        listed = await kit.get(PODS.replace("default", "nowhere"))
        assert listed["items"] == []


async def test_a_dry_run_changes_nothing() -> None:
    async with running() as kit:
        await kit.create(JOBS, job(), dryRun="All")
        assert kit.cluster.leftovers() == []


# Deleting.


async def test_a_delete_can_have_a_uid_as_a_precondition() -> None:
    async with running() as kit:
        created = await kit.create(CONFIG_MAPS, config_map())
        path = f"{CONFIG_MAPS}/config"
        refused = await kit.delete(path, preconditions={"uid": "other"})
        assert refusal(refused)[:2] == (409, "Conflict")
        assert "Precondition failed: UID in precondition: other" in refusal(refused)[2]
        uid = created["metadata"]["uid"]
        assert (await kit.delete(path, preconditions={"uid": uid})).json()["status"] == "Success"
        assert refusal(await kit.delete(path)) == (404, "NotFound", 'configmaps "config" not found')


async def test_an_unsupported_propagation_policy_is_rejected() -> None:
    async with running() as kit:
        await kit.create(CONFIG_MAPS, config_map())
        assert refusal(await kit.delete(f"{CONFIG_MAPS}/config", propagationPolicy="Sideways"))[0] == 422
        await kit.create(JOBS, job())
        # A real server would orphan the pods.
        response = await kit.client.delete(f"{JOBS}/job")
        assert 'propagationPolicy: Unsupported value: "Orphan": supported values' in refusal(response)[2]
        assert "child pods are preserved by default" in response.headers["warning"]


# Reading.


async def test_a_list_has_pages_with_the_same_resource_version() -> None:
    async with running() as kit:
        for name in "abcde":
            await kit.create(CONFIG_MAPS, config_map(name))
        names, token, first = [], "", None
        while first is None or token:
            page = await kit.get(CONFIG_MAPS, limit="2", **({"continue": token} if token else {}))
            first = first or page["metadata"]["resourceVersion"]
            assert page["metadata"]["resourceVersion"] == first
            names += [item["metadata"]["name"] for item in page["items"]]
            token = page["metadata"].get("continue", "")
        assert names == list("abcde")
        assert refusal(await kit.client.get(CONFIG_MAPS, params={"continue": "x"}))[0] == 400


async def test_a_page_token_expires_with_the_history() -> None:
    async with running() as kit:
        for name in "abc":
            await kit.create(CONFIG_MAPS, config_map(name))
        token = (await kit.get(CONFIG_MAPS, limit="1"))["metadata"]["continue"]
        await kit.create(CONFIG_MAPS, config_map("d"))
        kit.cluster.expire_watches()
        late = await kit.client.get(CONFIG_MAPS, params={"limit": "1", "continue": token})
        assert refusal(late)[:2] == (410, "Expired")


async def test_lists_can_be_selected_and_span_namespaces() -> None:
    async with running(namespaces=("default", "other")) as kit:
        await kit.create(CONFIG_MAPS, config_map("a"))
        await kit.create(CONFIG_MAPS.replace("default", "other"), config_map("b"))
        everywhere = await kit.get("/api/v1/configmaps")
        assert [item["metadata"]["name"] for item in everywhere["items"]] == ["a", "b"]
        assert "kind" not in everywhere["items"][0]
        one = await kit.get("/api/v1/configmaps", fieldSelector="metadata.namespace=other")
        assert [item["metadata"]["name"] for item in one["items"]] == ["b"]


async def test_an_invalid_number_in_the_query_is_a_bad_request() -> None:
    async with running() as kit:
        assert refusal(await kit.client.get(PODS, params={"limit": "many"}))[0] == 400
        version = await kit.client.get(PODS, params={"watch": "true", "resourceVersion": "x"})
        assert refusal(version)[2].startswith("invalid resource version")


async def test_version_and_health_respond() -> None:
    async with running() as kit:
        assert (await kit.get("/version"))["gitVersion"].startswith("v1.36")
        assert (await kit.client.get("/readyz")).text == "ok"


async def test_namespaces_nodes_and_runtime_classes_can_be_read() -> None:
    async with running(namespaces=("default", Namespace("strict", pod_security="restricted"))) as kit:
        assert (await kit.get("/api/v1/namespaces/strict"))["status"] == {"phase": "Active"}
        assert (await kit.get("/apis/node.k8s.io/v1/runtimeclasses/gvisor"))["handler"] == "runsc"
        (node,) = (await kit.get("/api/v1/nodes"))["items"]
        assert node["metadata"]["labels"]["sandbox.gke.io/runtime"] == "gvisor"
        assert refusal(await kit.client.get("/api/v1/namespaces/none"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/namespaces/default/secrets", 404),
        ("GET", f"{PODS}/x/status", 404),
        ("GET", f"{PODS}/x/y/z", 404),
        ("PATCH", f"{JOBS}/x", 405),
        ("PUT", f"{CONFIG_MAPS}/x", 405),
        ("DELETE", CONFIG_MAPS, 405),
        ("POST", PODS, 405),
        ("GET", "/apis", 404),
        ("POST", f"{JOBS}/x", 405),
        ("POST", "/apis/batch/v1/jobs", 405),
        ("POST", "/version", 405),
        ("DELETE", "/api/v1/nodes/node1", 405),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
    ],
)
async def test_unsupported_paths_and_methods_are_errors(method: str, path: str, code: int) -> None:
    async with running() as kit:
        assert (await kit.client.request(method, path)).status_code == code


async def test_a_missing_permission_is_named_in_the_error() -> None:
    rules = (Rule(("get", "list"), ("",), ("pods",)),)
    async with running(caller=Caller.service_account("default", "reader", rules)) as kit:
        assert (await kit.client.get(PODS)).status_code == 200
        watched = await kit.client.get(PODS, params={"watch": "true"})
        assert refusal(watched)[2] == (
            'pods is forbidden: User "system:serviceaccount:default:reader" cannot watch resource "pods" in '
            'API group "" in the namespace "default"'
        )
        assert refusal(await kit.client.get("/api/v1/pods"))[0] == 403
        assert "at the cluster scope" in refusal(await kit.client.get("/api/v1/nodes"))[2]
        me = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
        who = await kit.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", me)
        assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:reader"
