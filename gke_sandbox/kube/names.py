"""The syntax of Kubernetes names, label keys and values, and variable names. Pure.

Each function returns the problems of a value, as the API server words them, or an empty list. Builders check
values before a request with them, and the embedded cluster checks requests.
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import re

__all__ = [
    "annotation_key",
    "dns_label",
    "dns_subdomain",
    "env_name",
    "label_key",
    "label_value",
]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

_MAX_SUBDOMAIN = 253
_MAX_LABEL = 63
_EMPTY = "must be non-empty"


def dns_label(value: str) -> list[str]:
    """Check an RFC 1123 label of at most 63 characters: a namespace, or a name used as a host name or label."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
    if "." in value and re.fullmatch(_SUBDOMAIN, value):
        return [*_length(value, _MAX_LABEL), "must not contain dots"]
    rule = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
        "end with an alphanumeric character"
    )
    return _problems(value, _LABEL, rule, "my-name", "123-abc", maximum=_MAX_LABEL)


def dns_subdomain(value: str) -> list[str]:
    """Check an RFC 1123 subdomain of at most 253 characters: the name of most objects."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
    rule = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
        "start and end with an alphanumeric character"
    )
    return _problems(value, _SUBDOMAIN, rule, "example.com", maximum=_MAX_SUBDOMAIN)


def label_key(value: str) -> list[str]:
    """Check a qualified name, ``[subdomain/]name``: the key of a label, node selector or toleration."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    errors: list[str] = []
    prefix, slash, name = value.rpartition("/")
    rule = (
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
        "character"
    )
    examples = ("MyName", "my.name", "123-abc")
    if "/" in prefix:
        optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {_mismatch(_KEY, rule, *examples)} {optional}"]
    if slash:
        errors += [f"prefix part {error}" for error in (dns_subdomain(prefix) if prefix else [_EMPTY])]
    problems = [*([] if name else [_EMPTY]), *_problems(name, _KEY, rule, *examples, maximum=_MAX_LABEL)]
    return errors + [f"name part {error}" for error in problems]


def annotation_key(value: str) -> list[str]:
    """Check the key of an annotation: like that of a label, but upper case is allowed in the prefix."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/#syntax-and-character-set
    return label_key(value.lower())


def label_value(value: str) -> list[str]:
    """Check the value of a label: at most 63 characters; it may be empty."""
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    rule = (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
        "start and end with an alphanumeric character"
    )
    return _problems(value, f"({_KEY})?", rule, "MyValue", "my_value", "12345", maximum=_MAX_LABEL)


def env_name(value: str) -> list[str]:
    """Check the name of an environment variable by the rule of 1.27. Newer servers also allow other ASCII."""
    # https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
    rule = (
        "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and "
        "must not start with a digit"
    )
    examples = ("my.env-name", "MY_ENV.NAME", "MyEnvName1")
    return _problems(value, "[-._a-zA-Z][-._a-zA-Z0-9]*", rule, *examples) + _dots(value)


def _problems(value: str, pattern: str, rule: str, *examples: str, maximum: int | None = None) -> list[str]:
    errors = [] if maximum is None else _length(value, maximum)
    return errors if re.fullmatch(pattern, value) else [*errors, _mismatch(pattern, rule, *examples)]


def _length(value: str, maximum: int) -> list[str]:
    # The server counts bytes, although its message mentions characters.
    size = len(value.encode("utf-8", "surrogatepass"))
    return [f"must be no more than {maximum} characters"] if size > maximum else []


def _mismatch(pattern: str, rule: str, *examples: str) -> str:
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {listed}regex used for validation is '{pattern}')"


def _dots(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []
