"""Scan the Job of every delivery and rbac.yaml with checkov.

    python .ci/scan_manifests.py CHECKOV

The findings must be exactly those that docs/security.md lists, with the reasons why they are not followed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from gke_sandbox._wire.manifests import build, build_waiting
from gke_sandbox._wire.program import Program
from gke_sandbox.settings import Settings

ROOT = Path(__file__).parent.parent
NAMESPACE = "agent-sandbox"


def jobs() -> dict[str, dict[str, Any]]:
    """Return the Job of each delivery with default settings, and that of a warm pod."""
    program = Program(code="print(1)")
    made = {}
    for delivery in ("env", "mount", "attach"):
        settings = Settings(namespace=NAMESPACE).override(delivery=delivery)
        made[delivery] = build(settings, program, name=f"job-{delivery}", session="s").job
    warm = Settings(namespace=NAMESPACE).override(delivery="attach")
    made["warm"] = build_waiting(warm, name="job-warm", session="s", idle_timeout=600).job
    for job in made.values():
        # The namespace is part of the request's path, which a scanner does not see.
        job["metadata"]["namespace"] = job["spec"]["template"]["metadata"]["namespace"] = NAMESPACE
    return made


def findings(checkov: str) -> set[tuple[str, str]]:
    """Return the name of each file and the identifier of each failed check."""
    with tempfile.TemporaryDirectory() as directory:
        for name, job in jobs().items():
            Path(directory, f"job-{name}.yaml").write_text(yaml.safe_dump(job))
        Path(directory, "rbac.yaml").write_text((ROOT / "gke_sandbox" / "rbac.yaml").read_text())
        options = ["--framework", "kubernetes", "--skip-download", "--output", "json"]
        command = [checkov, "--directory", directory, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"checkov failed:\n{done.stdout}{done.stderr}")
    report = json.loads(done.stdout)
    print(f"checkov {report['summary']['checkov_version']}: {report['summary']['passed']} checks passed")
    if not report["summary"]["passed"] or report["summary"]["parsing_errors"]:
        sys.exit("checkov could not read the manifests")
    return {(Path(each["file_path"]).name, each["check_id"]) for each in report["results"]["failed_checks"]}


def main() -> None:
    found = findings(sys.argv[1])
    explained = set(re.findall(r"^\| `(CKV\w+)` \|", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE))
    unexplained = sorted(f"{check} in {name}" for name, check in found if check not in explained)
    if unexplained:
        sys.exit(f"fix these findings, or explain them in docs/security.md: {', '.join(unexplained)}")
    if unused := explained - {check for _, check in found}:
        sys.exit(f"docs/security.md explains findings that no longer exist: {', '.join(sorted(unused))}")
    print(f"explained in docs/security.md: {', '.join(sorted(explained))}")


if __name__ == "__main__":
    main()
