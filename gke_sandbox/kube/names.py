"""The syntax of Kubernetes names, label keys and values, variable names and ConfigMap keys. Pure.

Each function returns the problems of a value, as the API server words them, or an empty list. Builders check
values before a request with them, and the embedded cluster checks requests.
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

_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_KEY_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character"
)
_ENV_RULE = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and "
    "must not start with a digit"
)
_CONFIG_KEY_RULE = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"

_MAX_SUBDOMAIN = 253
_MAX_LABEL = 63


def dns_label(value: str) -> list[str]:
    """Check an RFC 1123 label of at most 63 characters: a namespace, or a name used as a host name or label."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
    errors = _length(value, _MAX_LABEL)
    if not re.fullmatch(_LABEL, value):
        if re.fullmatch(_SUBDOMAIN, value):
            errors.append("must not contain dots")
        else:
            errors.append(_mismatch(_LABEL_RULE, _LABEL, "my-name", "123-abc"))
    return errors


def dns_subdomain(value: str) -> list[str]:
    """Check an RFC 1123 subdomain of at most 253 characters: the name of most objects."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
    errors = _length(value, _MAX_SUBDOMAIN)
    if not re.fullmatch(_SUBDOMAIN, value):
        errors.append(_mismatch(_SUBDOMAIN_RULE, _SUBDOMAIN, "example.com"))
    return errors


def label_key(value: str) -> list[str]:
    """Check a qualified name, ``[subdomain/]name``: the key of a label, node selector or toleration."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    errors: list[str] = []
    parts = value.split("/")
    if len(parts) > 2:
        rule = _mismatch(_KEY_RULE, _KEY, "MyName", "my.name", "123-abc")
        return [
            f"a valid label key {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if len(parts) == 2:
        errors += [f"prefix part {error}" for error in (dns_subdomain(parts[0]) if parts[0] else [_EMPTY])]
    name = parts[-1]
    errors += [f"name part {error}" for error in (_length(name, _MAX_LABEL) if name else [_EMPTY])]
    if not re.fullmatch(_KEY, name):
        errors.append("name part " + _mismatch(_KEY_RULE, _KEY, "MyName", "my.name", "123-abc"))
    return errors


def annotation_key(value: str) -> list[str]:
    """Check the key of an annotation: like that of a label, but upper case is allowed in the prefix."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/#syntax-and-character-set
    return label_key(value.lower())


def label_value(value: str) -> list[str]:
    """Check the value of a label: at most 63 characters; it may be empty."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    errors = _length(value, _MAX_LABEL)
    if not re.fullmatch(_VALUE, value):
        errors.append(_mismatch(_VALUE_RULE, _VALUE, "MyValue", "my_value", "12345"))
    return errors


def env_name(value: str) -> list[str]:
    """Check the name of an environment variable by the rule of 1.27. Newer servers also allow other ASCII."""
    # https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
    errors = []
    if not re.fullmatch(_ENV, value):
        errors.append(_mismatch(_ENV_RULE, _ENV, "my.env-name", "MY_ENV.NAME", "MyEnvName1"))
    return errors + _dots(value)


def config_map_key(value: str) -> list[str]:
    """Check a key in the `data` or `binaryData` of a ConfigMap."""
    # https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-object
    errors = _length(value, _MAX_SUBDOMAIN)
    if not re.fullmatch(_CONFIG_KEY, value):
        errors.append(_mismatch(_CONFIG_KEY_RULE, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return errors + _dots(value)


_EMPTY = "must be non-empty"


def _length(value: str, maximum: int) -> list[str]:
    # The server counts bytes, although its message mentions characters.
    size = len(value.encode("utf-8", "surrogatepass"))
    return [f"must be no more than {maximum} characters"] if size > maximum else []


def _mismatch(rule: str, pattern: str, *examples: str) -> str:
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {listed}regex used for validation is '{pattern}')"


def _dots(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []
