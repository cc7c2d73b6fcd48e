"""Deleting Jobs without an event loop."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from gke_sandbox.kube.auth.impersonation import Impersonation
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.http.sync_delete import delete_jobs_sync


class Server(HTTPServer):
    """Responds with 403 to names starting with ``no``, 404 to ``gone``, else 200."""

    deleted: list[tuple[str, dict[str, str]]]
    headers: list[Message]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_DELETE(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.deleted.append((self.path, body))
        self.server.headers.append(self.headers)
        name = self.path.rsplit("/", 1)[-1]
        self.send_response(403 if name.startswith("no") else 404 if name == "gone" else 200)
        self.end_headers()
        self.wfile.write(b"message of the server")

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.deleted, running.headers = [], []
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/prefix"


def test_each_job_is_deleted_with_background_propagation(server: Server) -> None:
    delete_jobs_sync(ClusterConfig(server=address(server)), "ns", ["a", "b"])
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    assert server.deleted == [
        ("/prefix/apis/batch/v1/namespaces/ns/jobs/a", body),
        ("/prefix/apis/batch/v1/namespaces/ns/jobs/b", body),
    ]


def test_the_requests_have_the_impersonation_headers(server: Server) -> None:
    who = Impersonation("jürgen", groups=("a", "b"))
    delete_jobs_sync(ClusterConfig(server=address(server), impersonation=who), "ns", ["a"])
    headers = server.headers[0]
    assert headers["Impersonate-User"].encode("latin-1").decode() == "jürgen"
    assert headers.get_all("Impersonate-Group") == ["a", "b"]


def test_a_rejected_deletion_is_logged_and_the_others_continue(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "gke_sandbox"):
        delete_jobs_sync(ClusterConfig(server=address(server)), "ns", ["no", "gone", "b"])
    assert len(server.deleted) == 3
    assert [record.message for record in caplog.records] == [
        "Job no was not deleted at exit: message of the server"
    ]


def test_an_unreachable_server_is_logged_with_the_remaining_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with caplog.at_level(logging.WARNING, "gke_sandbox"):
        delete_jobs_sync(ClusterConfig(server=f"http://127.0.0.1:{port}"), "ns", ["a", "b"])
    assert len(caplog.records) == 1
    assert "Job a, b may be left in namespace ns" in caplog.records[0].message
