"""The names of each setting: in Python, on the command line, and as a field of the ADK executor. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ADK_FIELDS", "OPTIONS", "SETTING_NAMES", "SettingNames", "rename_settings", "suggest"]


@dataclass(frozen=True)
class SettingNames:
    """How one field of `Settings` is called elsewhere, and its unit."""

    option: str
    """The command-line option."""
    adk: str | None = None
    """The field of `adk.GkeCodeExecutor`. None if you set it in the executor's field `settings`."""
    unit: str = ""
    """``seconds``, ``bytes``, ``cores``, or "" if the value has no unit."""


SETTING_NAMES = {
    "namespace": SettingNames("--namespace", "namespace"),
    "image": SettingNames("--image", "image"),
    "timeout": SettingNames("--timeout", "timeout_seconds", "seconds"),
    "startup_timeout": SettingNames("--startup-timeout", "startup_timeout_seconds", "seconds"),
    "cpu_request": SettingNames("--cpu-request", "cpu_requested", "cores"),
    "memory_request": SettingNames("--memory-request", "mem_requested", "bytes"),
    "cpu_limit": SettingNames("--cpu", "cpu_limit", "cores"),
    "memory_limit": SettingNames("--memory", "mem_limit", "bytes"),
    "ephemeral_storage_request": SettingNames("--ephemeral-storage-request", unit="bytes"),
    "ephemeral_storage_limit": SettingNames("--ephemeral-storage", unit="bytes"),
    "tmp_size": SettingNames("--tmp-size", unit="bytes"),
    "delivery": SettingNames("--delivery"),
    "runtime_class_name": SettingNames("--runtime-class", "runtime_class_name"),
    "node_selector": SettingNames("--node-selector", "node_selector"),
    "tolerations": SettingNames("--toleration"),
    "env": SettingNames("--env"),
    "image_pull_secrets": SettingNames("--image-pull-secret"),
    "image_pull_policy": SettingNames("--image-pull-policy"),
    "priority_class_name": SettingNames("--priority-class"),
    "service_account_name": SettingNames("--service-account", "service_account_name"),
    "labels": SettingNames("--label", "labels"),
    "annotations": SettingNames("--annotation"),
    "run_as_user": SettingNames("--run-as-user"),
    "run_as_group": SettingNames("--run-as-group"),
    "accept_admission_changes": SettingNames("--accept-admission-change"),
    "ttl_seconds_after_finished": SettingNames("--ttl", unit="seconds"),
    "max_output_bytes": SettingNames("--max-output", "max_output_bytes", "bytes"),
    "max_file_bytes": SettingNames("--max-file-bytes", "max_file_bytes", "bytes"),
    "max_files": SettingNames("--max-files"),
}
"""The names of every field of `Settings`, in its order. docs/settings.md shows them."""

OPTIONS = {setting: names.option for setting, names in SETTING_NAMES.items()}
"""The command-line option of each setting."""

ADK_FIELDS = {setting: names.adk for setting, names in SETTING_NAMES.items() if names.adk is not None}
"""The field of the ADK executor of each setting that has one."""

_NEAR = 0.6
"""The similarity from which a name is suggested, between 0 and 1."""


def suggest(wrong: str, names: Mapping[str, str]) -> str | None:
    """Return the name that was probably meant by `wrong`, or None if no name is similar.

    `names` are the valid names by setting, or by themselves if they are not settings (see `OPTIONS`). A name of
    the same setting elsewhere is understood: ``mem_limit`` and ``--memory`` are the setting ``memory_limit``.
    """
    plain = _plain(wrong)
    for setting, other in SETTING_NAMES.items():
        if setting in names and plain in (setting, _plain(other.option), other.adk):
            return names[setting]
    by_plain = {**names, **{_plain(name): name for name in names.values()}}
    near = difflib.get_close_matches(plain, by_plain, n=1, cutoff=_NEAR)
    return by_plain[near[0]] if near else None


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def rename_settings(text: str, names: Mapping[str, str]) -> str:
    """Replace the settings that a hint or a message of a diagnosis mentions with their names elsewhere.

    Only names of two words or more: "timeout" and "image" may be ordinary words. A `SpecError` knows which
    settings it mentions: use `SpecError.renamed`.
    """
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda match: names.get(match[0], match[0]), text)
