"""GKE clusters by name, with responses as in the reference of Google's API."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock

from gke_sandbox.cluster import Cluster
from gke_sandbox.errors import ConfigError, NetworkError
from gke_sandbox.kube.auth.google import GoogleAuth
from gke_sandbox.kube.auth.google_base import Token
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.gke import Endpoint, gke_config, parse_gke
from gke_sandbox.kube.http.sync_delete import delete_jobs_sync

FIXTURES = Path(__file__).parents[2] / "fixtures" / "google"
NAME = ("my-project", "europe-west1", "cluster-1")
URL = "https://container.googleapis.com/v1/projects/my-project/locations/europe-west1/clusters/cluster-1"
LIST_URL = "https://container.googleapis.com/v1/projects/my-project/locations/-/clusters"


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


class OneToken:
    """Credentials with a fixed token."""

    description = "a token for tests"

    def __init__(self, quota_project: str | None = None) -> None:
        self.quota_project = quota_project

    def fetch(self) -> Token:
        return Token("ya29.secret")


def auth(quota_project: str | None = None) -> GoogleAuth:
    return GoogleAuth(lambda: OneToken(quota_project))


def find(endpoint: Endpoint = "auto", quota_project: str | None = None) -> ClusterConfig:
    return gke_config(*NAME, endpoint=endpoint, auth=auth(quota_project), sleep=lambda _: None)


def respond(httpx_mock: HTTPXMock, name: str, **changes: Any) -> None:
    """Respond with a fixture, with some top-level fields changed."""
    content = {**fixture(name), **changes}
    httpx_mock.add_response(url=URL, status_code=content.get("error", {}).get("code", 200), json=content)


# -- endpoints ----------------------------------------------------------------------------------------------


def test_the_ip_endpoint_has_the_ca_of_the_cluster(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster")
    config = find()
    assert config.server == "https://203.0.113.10"
    assert config.ca_data == b"-----BEGIN CERTIFICATE-----\nMIIBtest\n-----END CERTIFICATE-----\n"
    assert config.context == "gke_my-project_europe-west1_cluster-1"
    assert config.source == "the IP endpoint of the GKE cluster my-project/europe-west1/cluster-1"
    assert config.credentials == "Google credentials: a token for tests"
    request = httpx_mock.get_requests()[0]
    assert request.headers["Authorization"] == "Bearer ya29.secret"
    assert "X-Goog-User-Project" not in request.headers


def test_the_quota_project_is_sent_to_google_and_not_to_the_cluster(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster")
    config = find(quota_project="billing")
    assert httpx_mock.get_requests()[0].headers["X-Goog-User-Project"] == "billing"
    httpx_mock.add_response(url="https://203.0.113.10/version")
    with httpx.Client(auth=config.auth) as client:
        client.get("https://203.0.113.10/version")
    assert "X-Goog-User-Project" not in httpx_mock.get_requests()[-1].headers


def test_the_dns_endpoint_uses_the_systems_certificates(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster")
    config = find("dns")
    assert config.server == "https://gke-0123456789abcdef-123456789012.europe-west1.gke.goog"
    assert config.ca_data is None
    assert config.ca_source == "the system's certificates"


def test_the_dns_endpoint_is_used_if_ip_endpoints_are_disabled(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_dns_only")
    assert find().server.endswith(".gke.goog")


def test_the_dns_endpoint_is_used_if_it_is_the_only_one(httpx_mock: HTTPXMock) -> None:
    control_plane = {"dnsEndpointConfig": {"endpoint": "a.gke.goog", "allowExternalTraffic": True}}
    respond(httpx_mock, "cluster_dns_only", controlPlaneEndpointsConfig=control_plane)
    assert find().server == "https://a.gke.goog"


@pytest.mark.parametrize("endpoint", ["ip", "private"])
def test_a_disabled_ip_endpoint_is_an_error(httpx_mock: HTTPXMock, endpoint: Endpoint) -> None:
    respond(httpx_mock, "cluster_dns_only")
    with pytest.raises(ConfigError, match="are disabled") as caught:
        find(endpoint)
    assert caught.value.hint == "Use the endpoint dns."


@pytest.mark.parametrize("where", ["cluster", "cluster_dns_only"])
def test_the_hint_for_a_closed_dns_endpoint_is_the_command_that_opens_it(
    httpx_mock: HTTPXMock, where: str
) -> None:
    control_plane = fixture(where)["controlPlaneEndpointsConfig"]
    del control_plane["dnsEndpointConfig"]["allowExternalTraffic"]
    respond(httpx_mock, where, controlPlaneEndpointsConfig=control_plane)
    with pytest.raises(ConfigError, match="does not allow external traffic") as caught:
        find("dns" if where == "cluster" else "auto")
    assert "--enable-dns-access" in caught.value.hint


def test_a_cluster_without_endpoints_is_an_error(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_dns_only", controlPlaneEndpointsConfig={"ipEndpointsConfig": {"enabled": False}})
    with pytest.raises(ConfigError, match="has no DNS endpoint, and its IP endpoints are disabled"):
        find()


def test_the_private_endpoint_is_used_on_request(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster")
    config = find("private")
    assert config.server == "https://10.132.0.2"
    assert config.ca_data is not None


def test_the_private_endpoint_of_the_older_field_is_used(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster", controlPlaneEndpointsConfig={})
    assert find("private").server == "https://10.132.0.2"


def test_a_cluster_without_the_new_fields_has_an_ip_endpoint(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_old")
    assert find().server == "https://203.0.113.10"


def test_a_missing_private_endpoint_is_an_error(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_old")
    with pytest.raises(ConfigError, match="has no private endpoint"):
        find("private")


def test_an_ipv6_endpoint_has_brackets(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_old", endpoint="2001:db8::5")
    assert find().server == "https://[2001:db8::5]"


@pytest.mark.parametrize("authority", [{}, {"clusterCaCertificate": "!"}, {"clusterCaCertificate": "aGVsbG8="}])
def test_an_ip_endpoint_without_a_ca_is_an_error(httpx_mock: HTTPXMock, authority: dict[str, str]) -> None:
    respond(httpx_mock, "cluster", masterAuth=authority)
    with pytest.raises(ConfigError, match="returned no certificate authority"):
        find()


# -- the state of a cluster ---------------------------------------------------------------------------------


def test_a_cluster_that_is_being_created_is_an_error(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_provisioning")
    with pytest.raises(ConfigError, match="is still being created"):
        find()


def test_a_cluster_that_is_being_deleted_is_an_error(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster", status="STOPPING")
    with pytest.raises(ConfigError, match="is being deleted"):
        find()


def test_the_error_for_a_broken_cluster_contains_its_conditions(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_error")
    with pytest.raises(ConfigError, match="status ERROR: Instances could not be created"):
        find()


def test_a_cluster_that_is_being_updated_is_used(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster", status="RECONCILING")
    assert find().server == "https://203.0.113.10"


def test_a_degraded_cluster_is_used_with_a_warning(
    httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture
) -> None:
    respond(httpx_mock, "cluster", status="DEGRADED", statusMessage="the control plane is unhealthy")
    assert find().server == "https://203.0.113.10"
    assert "is degraded: the control plane is unhealthy" in caplog.text


def test_a_running_cluster_without_an_address_is_an_error(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "cluster_old", endpoint="")
    with pytest.raises(ConfigError, match="has no IP endpoint; its status: RUNNING"):
        find()


# -- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("forbidden", "access denied to the GKE cluster", "roles/container.clusterViewer"),
        ("forbidden", "access denied to the GKE cluster", "container.clusters.get"),
        (
            "api_disabled",
            "API is not enabled",
            "gcloud services enable container.googleapis.com --project my-project",
        ),
        ("no_quota_project", "no usable quota project", "set-quota-project"),
        ("scope_insufficient", "access scopes", "cloud-platform"),
    ],
)
def test_an_error_of_google_has_a_hint(httpx_mock: HTTPXMock, name: str, message: str, hint: str) -> None:
    respond(httpx_mock, name)
    with pytest.raises(ConfigError, match=message) as caught:
        find()
    assert hint in caught.value.hint
    assert fixture(name)["error"]["message"] in caught.value.message
    assert "my-project/europe-west1/cluster-1" in caught.value.message


def test_rejected_credentials_are_an_error_without_the_token(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "unauthenticated")
    with pytest.raises(ConfigError, match="rejected the credentials") as caught:
        find()
    assert "ya29" not in str(caught.value) + caught.value.hint


def test_the_hint_for_an_unknown_cluster_lists_similar_names_first(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "not_found")
    httpx_mock.add_response(url=LIST_URL, json=fixture("clusters"))
    with pytest.raises(ConfigError, match="no such GKE cluster: my-project/europe-west1/cluster-1") as caught:
        find()
    assert caught.value.hint == (
        "The clusters are: my-project/europe-west1-b/cluster-1, my-project/europe-west1/cluster-2, "
        "my-project/us-central1-c/batch."
    )


def test_the_hint_for_an_unknown_cluster_without_permission_to_list_is_a_command(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "not_found")
    httpx_mock.add_response(url=LIST_URL, status_code=403, json=fixture("forbidden"))
    with pytest.raises(ConfigError, match="no such GKE cluster") as caught:
        find()
    assert caught.value.hint == "List the clusters with: gcloud container clusters list --project my-project."


def test_the_hint_for_an_unknown_cluster_in_an_empty_project_contains_the_project(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "not_found")
    httpx_mock.add_response(url=LIST_URL, json={})
    with pytest.raises(ConfigError) as caught:
        find()
    assert caught.value.hint == "The project my-project has no GKE clusters, or you have no access to them."


def test_the_hint_lists_at_most_ten_clusters(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "not_found")
    many = [{"name": f"c{number}", "location": "us-east1"} for number in range(25)]
    httpx_mock.add_response(url=LIST_URL, json={"clusters": many})
    with pytest.raises(ConfigError) as caught:
        find()
    assert caught.value.hint.endswith(" and 15 more.")


def test_the_hint_for_an_unknown_location_lists_the_clusters(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "unknown_location")
    httpx_mock.add_response(url=LIST_URL, json=fixture("clusters"))
    with pytest.raises(ConfigError, match=r'Location "europe-west1" does not exist') as caught:
        find()
    assert "my-project/us-central1-c/batch" in caught.value.hint


def test_the_request_is_retried_if_google_is_busy(httpx_mock: HTTPXMock) -> None:
    respond(httpx_mock, "unavailable")
    respond(httpx_mock, "cluster")
    assert find().server == "https://203.0.113.10"


def test_retries_end_if_google_stays_busy(httpx_mock: HTTPXMock) -> None:
    for _ in range(3):
        respond(httpx_mock, "unavailable")
    with pytest.raises(NetworkError, match="failed with HTTP 503"):
        find()


def test_an_unreachable_google_is_a_network_error(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ConnectError("[Errno -3] Temporary failure in name resolution"))
    with pytest.raises(NetworkError, match=r"container\.googleapis\.com: .*name resolution") as caught:
        find()
    assert caught.value.sent is False
    assert "proxy" in caught.value.hint


def test_a_response_that_is_not_json_is_a_network_error(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=URL, html="<h1>Log in to the hotel's network</h1>")
    with pytest.raises(NetworkError, match="a body that is not JSON"):
        find()


@pytest.mark.parametrize("body", [b"[]", b'{"error": "no"}', b'{"error": {"details": 5, "message": null}}'])
def test_an_error_in_an_unknown_form_is_still_an_error(httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(url=URL, status_code=418, content=body)
    with pytest.raises((ConfigError, NetworkError), match="418"):
        find()


def test_the_token_is_not_in_repr_or_log(httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    respond(httpx_mock, "cluster")
    config = find()
    assert "ya29" not in repr(config) + repr(config.auth) + caplog.text


# -- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "my-project/europe-west1/cluster-1",
        "projects/my-project/locations/europe-west1/clusters/cluster-1",
        "projects/my-project/zones/europe-west1/clusters/cluster-1",
        "  my-project/europe-west1/cluster-1\n",
    ],
)
def test_both_forms_of_a_name_are_parsed(text: str) -> None:
    assert parse_gke(text) == NAME
    assert str(parse_gke(text)) == "my-project/europe-west1/cluster-1"


def test_a_project_may_have_a_domain() -> None:
    assert parse_gke("example.com:my-project/us-east1-b/c").project == "example.com:my-project"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster-1", "it must have 3 parts, got 1"),
        ("my-project/cluster-1", "it must have 3 parts, got 2"),
        ("a/b/c/d", "it must have 3 parts, got 4"),
        ("my-project//cluster-1", "the location of the GKE cluster is empty"),
        ("my-project/-/cluster-1", "'-' is not a valid location"),
        ("my-project/europe-west1/Cluster", "'Cluster' is not a valid name"),
        ("my project/europe-west1/cluster-1", "'my project' is not a valid project"),
        ("my-project/europe-west1/../x", "got 4"),
        ("my-project/europe-west1/c?x", r"'c\?x' is not a valid name"),
    ],
)
def test_an_invalid_name_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_gke(text)
    assert "PROJECT/LOCATION/NAME" in caught.value.hint


def test_the_hint_for_the_name_of_a_context_is_the_name_of_the_cluster() -> None:
    with pytest.raises(ConfigError, match="name of a context in a kubeconfig") as caught:
        parse_gke("gke_my-project_europe-west1_cluster-1")
    assert "my-project/europe-west1/cluster-1" in caught.value.hint


def test_a_gke_cluster_is_a_value() -> None:
    cluster = Cluster.gke(*NAME, endpoint="dns")
    assert cluster == Cluster.gke(*parse_gke("my-project/europe-west1/cluster-1"), endpoint="dns")
    assert cluster != Cluster.gke(*NAME)
    assert pickle.loads(pickle.dumps(cluster)) == cluster
    assert hash(cluster) == hash(Cluster.gke(*NAME, endpoint="dns"))


def test_an_invalid_part_of_a_gke_cluster_is_an_error_immediately() -> None:
    with pytest.raises(ConfigError, match="location"):
        Cluster.gke("my-project", "Europe", "cluster-1")
    with pytest.raises(ConfigError, match="endpoint: must be one of auto, ip, private, dns, got 'public'"):
        Cluster.gke(*NAME, endpoint="public")  # type: ignore[arg-type]


def test_a_gke_cluster_connects_by_its_name(
    httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "metadata.test")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    httpx_mock.add_response(json=fixture("token"))
    respond(httpx_mock, "cluster")
    connection = Cluster.gke(*NAME)._connect()
    assert connection.client.config.server == "https://203.0.113.10"
    assert "metadata.test" in connection.client.config.credentials


# -- at exit ------------------------------------------------------------------------------------------------


def test_jobs_are_deleted_at_exit_with_the_token(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(method="DELETE", json={})
    config = ClusterConfig(server="https://203.0.113.10", auth=auth())
    delete_jobs_sync(config, "ns", ["a"])
    assert httpx_mock.get_requests()[0].headers["Authorization"] == "Bearer ya29.secret"


def test_without_a_token_the_remaining_jobs_are_logged_at_exit(caplog: pytest.LogCaptureFixture) -> None:
    def no_credentials() -> OneToken:
        raise NetworkError("no way to Google", sent=False)

    config = ClusterConfig(server="https://203.0.113.10", auth=GoogleAuth(no_credentials))
    delete_jobs_sync(config, "ns", ["a"])
    assert "a may be left in namespace ns: no way to Google" in caplog.text


# -- requests -----------------------------------------------------------------------------------------------


def test_credentials_work_without_the_package_requests(tmp_path: Path) -> None:
    """In a new interpreter, load every kind of credentials and check that nothing imports requests."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    file = tmp_path / "user.json"
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    file.write_text(json.dumps({**user, "token_uri": f"http://127.0.0.1:{port}/"}))
    program = f"""
import sys
tried = []
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("requests", "urllib3", "aiohttp"):
            tried.append(name)
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import gke_sandbox.kube.gke
from gke_sandbox.kube.auth.google import google_auth
assert "google.auth" not in sys.modules
auth = google_auth(environ={{"GOOGLE_APPLICATION_CREDENTIALS": {str(file)!r}}})
assert "google.auth" not in sys.modules
from gke_sandbox.kube.auth.google_adc import FileCredentials
import json
source = json.loads(open({str(file)!r}).read())
pool = {{"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/"
    "workloadIdentityPools/p/providers/q", "token_url": "https://sts.googleapis.com/v1/token",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": {{"file": "/none"}}}}
other = {{"type": "impersonated_service_account", "source_credentials": source,
    "service_account_impersonation_url": "https://x/v1/projects/-/serviceAccounts/a@b:generateAccessToken"}}
for info in (source, pool, other):
    FileCredentials(json.dumps(info).encode(), "a file")
from google.oauth2 import service_account
print(tried, "requests" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("[] False\n", "")
