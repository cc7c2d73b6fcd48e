"""The syntax of Kubernetes' names, label keys and values, variable names and ConfigMap keys. Pure.

Each function returns what is wrong with a value, in the API server's own words; an empty list means nothing is.
Builders use them before a request, the embedded cluster to answer one.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import re

__all__ = [
    "annotation_key",
    "config_map_key",
    "dns_label",
    "dns_subdomain",
    "env_name",
    "label_key",
    "label_value",
]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_KEY})?"
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_KEY_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character"
)
_ENV_WORDS = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and "
    "must not start with a digit"
)
_CONFIG_KEY_WORDS = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"

_MAX_SUBDOMAIN = 253
_MAX_LABEL = 63


def dns_label(value: str) -> list[str]:
    """An RFC 1123 label, at most 63 characters: a namespace, and whatever becomes a host name or a label."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
    errors = _length(value, _MAX_LABEL)
    if not re.fullmatch(_LABEL, value):
        if re.fullmatch(_SUBDOMAIN, value):
            errors.append("must not contain dots")
        else:
            errors.append(_mismatch(_LABEL_WORDS, _LABEL, "my-name", "123-abc"))
    return errors


def dns_subdomain(value: str) -> list[str]:
    """An RFC 1123 subdomain, at most 253 characters: the name of most objects."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
    errors = _length(value, _MAX_SUBDOMAIN)
    if not re.fullmatch(_SUBDOMAIN, value):
        errors.append(_mismatch(_SUBDOMAIN_WORDS, _SUBDOMAIN, "example.com"))
    return errors


def label_key(value: str) -> list[str]:
    """A qualified name: ``[subdomain/]name``; keys of labels and of node selectors, keys of tolerations."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    errors: list[str] = []
    parts = value.split("/")
    if len(parts) > 2:
        words = _mismatch(_KEY_WORDS, _KEY, "MyName", "my.name", "123-abc")
        return [
            f"a valid label key {words} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if len(parts) == 2:
        errors += [f"prefix part {error}" for error in (dns_subdomain(parts[0]) if parts[0] else [_EMPTY])]
    name = parts[-1]
    errors += [f"name part {error}" for error in (_length(name, _MAX_LABEL) if name else [_EMPTY])]
    if not re.fullmatch(_KEY, name):
        errors.append("name part " + _mismatch(_KEY_WORDS, _KEY, "MyName", "my.name", "123-abc"))
    return errors


def annotation_key(value: str) -> list[str]:
    """As a label's key, but that the prefix may have capitals."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/#syntax-and-character-set
    return label_key(value.lower())


def label_value(value: str) -> list[str]:
    """A label's value: at most 63 characters, and may be empty."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    errors = _length(value, _MAX_LABEL)
    if not re.fullmatch(_VALUE, value):
        errors.append(_mismatch(_VALUE_WORDS, _VALUE, "MyValue", "my_value", "12345"))
    return errors


def env_name(value: str) -> list[str]:
    """The name of an environment variable as 1.27 takes it; newer servers take any printable ASCII but `=`."""
    # https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
    errors = []
    if not re.fullmatch(_ENV, value):
        errors.append(_mismatch(_ENV_WORDS, _ENV, "my.env-name", "MY_ENV.NAME", "MyEnvName1"))
    return errors + _dots(value)


def config_map_key(value: str) -> list[str]:
    """A key in a ConfigMap's `data` or `binaryData`."""
    # https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-object
    errors = _length(value, _MAX_SUBDOMAIN)
    if not re.fullmatch(_CONFIG_KEY, value):
        errors.append(_mismatch(_CONFIG_KEY_WORDS, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return errors + _dots(value)


_EMPTY = "must be non-empty"


def _length(value: str, most: int) -> list[str]:
    # The server counts bytes and says characters.
    size = len(value.encode("utf-8", "surrogatepass"))
    return [f"must be no more than {most} characters"] if size > most else []


def _mismatch(words: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def _dots(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []
