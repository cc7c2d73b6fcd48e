"""User impersonation: send requests as another user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import ConfigError

__all__ = ["Impersonation"]

# The characters of a header's name, without "%", which starts an escape.
# https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
_PLAIN_IN_A_NAME = frozenset(b"!#$&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class Impersonation:
    """Headers for user impersonation (requires the ``impersonate`` verb). They are not secret.

    `extra` maps a key to its values. Raise `ConfigError` for a uid, groups or extra without a user, for a user
    of only white space, and for values that are not valid in a header.
    """

    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = field(default="impersonation", compare=False)

    def __post_init__(self) -> None:
        if not self.user:
            raise ConfigError(f"{self.source}: a uid, groups or extra require a user to impersonate")
        if not _trimmed(self.user):
            # A server would ignore the empty header and use the permissions of the real user.
            raise ConfigError(f"{self.source}: the user to impersonate must be a name, got only white space")
        for _, value in self.headers():
            if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in value if c != "\t"):
                raise ConfigError(f"{self.source}: {value!r} contains characters that are invalid in a header")

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers. Those of `groups` and `extra` are repeated; values may be any Unicode.

        Like Go, remove white space around the values: it is not valid in HTTP.
        """
        # https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
        found = [("Impersonate-User", self.user)]
        if self.uid:
            found.append(("Impersonate-Uid", self.uid))
        found += [("Impersonate-Group", group) for group in self.groups]
        found += [
            (f"Impersonate-Extra-{_escaped(key)}", value) for key, values in self.extra.items() for value in values
        ]
        return [(name, _trimmed(value)) for name, value in found]


def _trimmed(value: str) -> str:
    return value.strip(" \t")


def _escaped(key: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN_IN_A_NAME else f"%{byte:02x}" for byte in key.encode())
