"""Wrong uses of the public interface. A type checker reports an error on each marked line: see check.py."""

from __future__ import annotations

from gke_sandbox import AsyncSandbox, Program, Sandbox
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.settings import Settings, SettingsDict

Sandbox(namespase="x")  # error
Sandbox(timeot=3)  # error
Sandbox(cpu_limit=3)  # error
Sandbox(timeout="soon")  # error
Sandbox("local")  # error
Sandbox(delivery="pigeon")  # error
Sandbox(mem_limit="1Gi")  # error
AsyncSandbox(namespase="x")  # error
AsyncSandbox(timeot=3)  # error
AsyncSandbox(cpu_limit=3)  # error
AsyncSandbox(timeout="soon")  # error


def synchronous(sandbox: Sandbox) -> None:
    sandbox.run("", timeot=3)  # error
    sandbox.run("", cpu_limit=3)  # error
    sandbox.run("", timeout="soon")  # error
    sandbox.run("", stdin=3)  # error
    sandbox.run(3)  # error
    sandbox.stream("", timeot=3)  # error
    sandbox.stream("", timeout="soon")  # error
    sandbox.map([""], limit=3)  # error
    sandbox.map([""], timeot=3)  # error
    sandbox.map([""], timeout="soon")  # error
    sandbox.map([3])  # error
    sandbox.map(Program(code=""))  # error
    sandbox.settings.override(timeot=3)  # error
    print(sandbox.run("").exit_cod)  # error


async def asynchronous(sandbox: AsyncSandbox) -> None:
    await sandbox.run("", timeot=3)  # error
    await sandbox.run("", timeout="soon")  # error
    sandbox.stream("", timeot=3)  # error
    await sandbox.map([""], max_concurrency="3")  # error
    await sandbox.map([""], namespase="x")  # error


GkeCodeExecutor(settings={"timeot": 3})  # error
GkeCodeExecutor(settings={"env": "A=1"})  # error
GkeCodeExecutor(kubeconfig_path=3)  # error
Settings(cpu_limit=3)  # error
settings: SettingsDict = {"max_file": 3}  # error
