"""A GKE cluster by its name, against answers as Google's reference describes them."""

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
    """Credentials that always give the same token."""

    description = "a token for tests"

    def __init__(self, quota_project: str | None = None) -> None:
        self.quota_project = quota_project

    def fetch(self) -> Token:
        return Token("ya29.secret")


def auth(quota_project: str | None = None) -> GoogleAuth:
    return GoogleAuth(lambda: OneToken(quota_project))


def ask(endpoint: Endpoint = "auto", quota_project: str | None = None) -> ClusterConfig:
    return gke_config(*NAME, endpoint=endpoint, auth=auth(quota_project), sleep=lambda _: None)


def answer(httpx_mock: HTTPXMock, name: str, **changes: Any) -> None:
    """Google answers with a fixture, some of its top fields changed."""
    content = {**fixture(name), **changes}
    httpx_mock.add_response(url=URL, status_code=content.get("error", {}).get("code", 200), json=content)


# -- endpoints ----------------------------------------------------------------------------------------------


def test_the_ip_endpoint_is_trusted_by_the_clusters_own_authority(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster")
    config = ask()
    assert config.server == "https://203.0.113.10"
    assert config.ca_data == b"-----BEGIN CERTIFICATE-----\nMIIBtest\n-----END CERTIFICATE-----\n"
    assert config.context == "gke_my-project_europe-west1_cluster-1"
    assert config.source == "the IP endpoint of the GKE cluster my-project/europe-west1/cluster-1"
    assert config.credentials == "Google credentials: a token for tests"
    request = httpx_mock.get_requests()[0]
    assert request.headers["Authorization"] == "Bearer ya29.secret"
    assert "X-Goog-User-Project" not in request.headers


def test_the_quota_project_is_told_to_google_and_not_to_the_cluster(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster")
    config = ask(quota_project="billing")
    assert httpx_mock.get_requests()[0].headers["X-Goog-User-Project"] == "billing"
    httpx_mock.add_response(url="https://203.0.113.10/version")
    with httpx.Client(auth=config.auth) as client:
        client.get("https://203.0.113.10/version")
    assert "X-Goog-User-Project" not in httpx_mock.get_requests()[-1].headers


def test_the_dns_endpoint_is_trusted_by_the_systems_authorities(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster")
    config = ask("dns")
    assert config.server == "https://gke-0123456789abcdef-123456789012.europe-west1.gke.goog"
    assert config.ca_data is None
    assert config.ca_source == "the system's certificates"


def test_the_dns_endpoint_is_used_where_ip_endpoints_are_switched_off(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_dns_only")
    assert ask().server.endswith(".gke.goog")


def test_the_dns_endpoint_is_used_where_there_is_no_other(httpx_mock: HTTPXMock) -> None:
    control_plane = {"dnsEndpointConfig": {"endpoint": "a.gke.goog", "allowExternalTraffic": True}}
    answer(httpx_mock, "cluster_dns_only", controlPlaneEndpointsConfig=control_plane)
    assert ask().server == "https://a.gke.goog"


@pytest.mark.parametrize("endpoint", ["ip", "private"])
def test_an_ip_endpoint_that_is_switched_off_cannot_be_asked_for(
    httpx_mock: HTTPXMock, endpoint: Endpoint
) -> None:
    answer(httpx_mock, "cluster_dns_only")
    with pytest.raises(ConfigError, match="are switched off") as caught:
        ask(endpoint)
    assert caught.value.hint == "Use the endpoint dns."


@pytest.mark.parametrize("where", ["cluster", "cluster_dns_only"])
def test_a_closed_dns_endpoint_is_an_error_that_says_how_to_open_it(httpx_mock: HTTPXMock, where: str) -> None:
    control_plane = fixture(where)["controlPlaneEndpointsConfig"]
    del control_plane["dnsEndpointConfig"]["allowExternalTraffic"]
    answer(httpx_mock, where, controlPlaneEndpointsConfig=control_plane)
    with pytest.raises(ConfigError, match="lets no traffic in from outside") as caught:
        ask("dns" if where == "cluster" else "auto")
    assert "--enable-dns-access" in caught.value.hint


def test_no_endpoint_at_all_is_an_error(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_dns_only", controlPlaneEndpointsConfig={"ipEndpointsConfig": {"enabled": False}})
    with pytest.raises(ConfigError, match="has no DNS endpoint, and its IP endpoints are switched off"):
        ask()


def test_the_private_endpoint_on_request(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster")
    config = ask("private")
    assert config.server == "https://10.132.0.2"
    assert config.ca_data is not None


def test_the_private_endpoint_of_an_older_field(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster", controlPlaneEndpointsConfig={})
    assert ask("private").server == "https://10.132.0.2"


def test_a_cluster_without_the_new_fields_has_an_ip_endpoint(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_old")
    assert ask().server == "https://203.0.113.10"


def test_a_cluster_without_a_private_endpoint(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_old")
    with pytest.raises(ConfigError, match="has no private endpoint"):
        ask("private")


def test_an_ipv6_endpoint_gets_brackets(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_old", endpoint="2001:db8::5")
    assert ask().server == "https://[2001:db8::5]"


@pytest.mark.parametrize("authority", [{}, {"clusterCaCertificate": "!"}, {"clusterCaCertificate": "aGVsbG8="}])
def test_an_ip_endpoint_without_its_authority_is_refused(httpx_mock: HTTPXMock, authority: dict[str, str]) -> None:
    answer(httpx_mock, "cluster", masterAuth=authority)
    with pytest.raises(ConfigError, match="names no certificate authority"):
        ask()


# -- the cluster's state ------------------------------------------------------------------------------------


def test_a_cluster_that_is_being_made(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_provisioning")
    with pytest.raises(ConfigError, match="is still being made"):
        ask()


def test_a_cluster_that_is_being_deleted(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster", status="STOPPING")
    with pytest.raises(ConfigError, match="is being deleted"):
        ask()


def test_a_broken_cluster_with_googles_reason(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_error")
    with pytest.raises(ConfigError, match="status ERROR: Instances could not be created"):
        ask()


def test_a_cluster_that_is_being_updated_is_used(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster", status="RECONCILING")
    assert ask().server == "https://203.0.113.10"


def test_a_degraded_cluster_is_used_with_a_warning(
    httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture
) -> None:
    answer(httpx_mock, "cluster", status="DEGRADED", statusMessage="the control plane is ill")
    assert ask().server == "https://203.0.113.10"
    assert "is degraded: the control plane is ill" in caplog.text


def test_a_running_cluster_without_an_address(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "cluster_old", endpoint="")
    with pytest.raises(ConfigError, match="has no IP endpoint; its status: RUNNING"):
        ask()


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("forbidden", "may not look at the GKE cluster", "roles/container.clusterViewer"),
        ("forbidden", "may not look at the GKE cluster", "container.clusters.get"),
        (
            "api_disabled",
            "API is not enabled",
            "gcloud services enable container.googleapis.com --project my-project",
        ),
        ("no_quota_project", "no usable quota project", "set-quota-project"),
        ("scope_insufficient", "access scopes", "cloud-platform"),
    ],
)
def test_a_refusal_says_what_to_do(httpx_mock: HTTPXMock, name: str, message: str, hint: str) -> None:
    answer(httpx_mock, name)
    with pytest.raises(ConfigError, match=message) as caught:
        ask()
    assert hint in caught.value.hint
    assert fixture(name)["error"]["message"] in caught.value.message
    assert "my-project/europe-west1/cluster-1" in caught.value.message


def test_credentials_that_google_does_not_accept(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "unauthenticated")
    with pytest.raises(ConfigError, match="does not accept the credentials") as caught:
        ask()
    assert "ya29" not in str(caught.value) + caught.value.hint


def test_a_name_that_does_not_exist_lists_the_nearest_first(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "not_found")
    httpx_mock.add_response(url=LIST_URL, json=fixture("clusters"))
    with pytest.raises(ConfigError, match="there is no GKE cluster my-project/europe-west1/cluster-1") as caught:
        ask()
    assert caught.value.hint == (
        "There is: my-project/europe-west1-b/cluster-1, my-project/europe-west1/cluster-2, "
        "my-project/us-central1-c/batch"
    )


def test_a_name_that_does_not_exist_where_listing_is_forbidden(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "not_found")
    httpx_mock.add_response(url=LIST_URL, status_code=403, json=fixture("forbidden"))
    with pytest.raises(ConfigError, match="there is no GKE cluster") as caught:
        ask()
    assert caught.value.hint == "See gcloud container clusters list --project my-project"


def test_a_name_that_does_not_exist_in_a_project_without_clusters(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "not_found")
    httpx_mock.add_response(url=LIST_URL, json={})
    with pytest.raises(ConfigError) as caught:
        ask()
    assert "has no GKE cluster that you may see" in caught.value.hint


def test_many_clusters_are_not_all_listed(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "not_found")
    many = [{"name": f"c{number}", "location": "us-east1"} for number in range(25)]
    httpx_mock.add_response(url=LIST_URL, json={"clusters": many})
    with pytest.raises(ConfigError) as caught:
        ask()
    assert caught.value.hint.endswith(" and 15 more")


def test_an_unknown_location_lists_the_clusters(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "unknown_location")
    httpx_mock.add_response(url=LIST_URL, json=fixture("clusters"))
    with pytest.raises(ConfigError, match=r'Location "europe-west1" does not exist') as caught:
        ask()
    assert "my-project/us-central1-c/batch" in caught.value.hint


def test_a_busy_google_is_asked_again(httpx_mock: HTTPXMock) -> None:
    answer(httpx_mock, "unavailable")
    answer(httpx_mock, "cluster")
    assert ask().server == "https://203.0.113.10"


def test_a_google_that_stays_busy(httpx_mock: HTTPXMock) -> None:
    for _ in range(3):
        answer(httpx_mock, "unavailable")
    with pytest.raises(NetworkError, match="in trouble, HTTP 503"):
        ask()


def test_no_network(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ConnectError("[Errno -3] Temporary failure in name resolution"))
    with pytest.raises(NetworkError, match=r"container\.googleapis\.com: .*name resolution") as caught:
        ask()
    assert caught.value.sent is False
    assert "proxy" in caught.value.hint


def test_an_answer_of_something_between_us_and_google(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=URL, html="<h1>Log in to the hotel's network</h1>")
    with pytest.raises(NetworkError, match="something that is not JSON"):
        ask()


@pytest.mark.parametrize("body", [b"[]", b'{"error": "no"}', b'{"error": {"details": 5, "message": null}}'])
def test_an_error_in_an_unknown_form_is_still_an_error(httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(url=URL, status_code=418, content=body)
    with pytest.raises((ConfigError, NetworkError), match="418"):
        ask()


def test_neither_repr_nor_log_shows_the_token(httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer(httpx_mock, "cluster")
    config = ask()
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
def test_a_name_in_one_piece(text: str) -> None:
    assert parse_gke(text) == NAME
    assert str(parse_gke(text)) == "my-project/europe-west1/cluster-1"


def test_a_project_of_a_domain() -> None:
    assert parse_gke("example.com:my-project/us-east1-b/c").project == "example.com:my-project"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster-1", "it has 1 parts, not 3"),
        ("my-project/cluster-1", "it has 2 parts, not 3"),
        ("a/b/c/d", "it has 4 parts, not 3"),
        ("my-project//cluster-1", "the location of the GKE cluster is empty"),
        ("my-project/-/cluster-1", "'-' cannot be the location"),
        ("my-project/europe-west1/Cluster", "'Cluster' cannot be the cluster's name"),
        ("my project/europe-west1/cluster-1", "'my project' cannot be the project"),
        ("my-project/europe-west1/../x", "it has 4 parts"),
        ("my-project/europe-west1/c?x", r"'c\?x' cannot be"),
    ],
)
def test_what_is_no_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_gke(text)
    assert "PROJECT/LOCATION/NAME" in caught.value.hint


def test_the_name_of_a_context_is_turned_into_the_clusters() -> None:
    with pytest.raises(ConfigError, match="name of a kubeconfig's context") as caught:
        parse_gke("gke_my-project_europe-west1_cluster-1")
    assert "my-project/europe-west1/cluster-1" in caught.value.hint


def test_a_gke_cluster_is_a_value() -> None:
    cluster = Cluster.gke(*NAME, endpoint="dns")
    assert cluster == Cluster.gke(*parse_gke("my-project/europe-west1/cluster-1"), endpoint="dns")
    assert cluster != Cluster.gke(*NAME)
    assert pickle.loads(pickle.dumps(cluster)) == cluster
    assert hash(cluster) == hash(Cluster.gke(*NAME, endpoint="dns"))


def test_a_gke_cluster_with_a_wrong_part_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="location"):
        Cluster.gke("my-project", "Europe", "cluster-1")
    with pytest.raises(ConfigError, match="endpoint is 'public', not one of auto, ip, private, dns"):
        Cluster.gke(*NAME, endpoint="public")  # type: ignore[arg-type]


def test_a_gke_cluster_connects_by_its_name(
    httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "metadata.test")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    httpx_mock.add_response(json=fixture("token"))
    answer(httpx_mock, "cluster")
    connection = Cluster.gke(*NAME)._connect()
    assert connection.client.config.server == "https://203.0.113.10"
    assert "metadata.test" in connection.client.config.credentials


# -- at exit ------------------------------------------------------------------------------------------------


def test_jobs_are_deleted_at_exit_with_the_token(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(method="DELETE", json={})
    config = ClusterConfig(server="https://203.0.113.10", auth=auth())
    delete_jobs_sync(config, "ns", ["a"])
    assert httpx_mock.get_requests()[0].headers["Authorization"] == "Bearer ya29.secret"


def test_without_a_token_the_jobs_left_at_exit_are_named(caplog: pytest.LogCaptureFixture) -> None:
    def no_credentials() -> OneToken:
        raise NetworkError("no way to Google", sent=False)

    config = ClusterConfig(server="https://203.0.113.10", auth=GoogleAuth(no_credentials))
    delete_jobs_sync(config, "ns", ["a"])
    assert "a may be left in namespace ns: no way to Google" in caplog.text


# -- requests -----------------------------------------------------------------------------------------------


def test_everything_works_where_requests_cannot_be_imported(tmp_path: Path) -> None:
    """In a fresh interpreter: every kind of credentials loads, and nothing has tried to import requests."""
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
import gke_sandbox.kube.gke as google
assert "google.auth" not in sys.modules
auth = google.google_auth(environ={{"GOOGLE_APPLICATION_CREDENTIALS": {str(file)!r}}})
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
