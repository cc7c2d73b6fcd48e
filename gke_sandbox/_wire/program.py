"""The program of one execution: code, files, arguments and standard input, checked when it is made. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .._checks import check_content, check_sequence, check_text, describe, entry_path
from ..errors import SpecError
from .paths import FileTree, safe_name

MAIN = "main.py"
"""The program's own file in its working directory."""

_MAX_INPUT_FILES = 1000


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is to run: Python source and what it finds when it starts. Text becomes UTF-8 bytes.

    `files` are put into the working directory beside the program (which is ``main.py``) under names that have
    passed `paths.safe_name`. `args` are ``sys.argv[1:]``. `stdin` None is an empty standard input. Raises
    `SpecError` when made with something that cannot be.
    """

    code: str | bytes = field(repr=False)
    files: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)
    args: Sequence[str] = ()
    stdin: str | bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", check_content("code", self.code))
        object.__setattr__(self, "files", self._checked_files())
        args = check_sequence("args", self.args)
        for i, arg in enumerate(args):
            if "\0" in check_text(f"args[{i}]", arg):
                raise SpecError(f"args[{i}]", "must not contain a NUL")
        object.__setattr__(self, "args", args)
        if self.stdin is not None:
            object.__setattr__(self, "stdin", check_content("stdin", self.stdin))

    def _checked_files(self) -> dict[str, bytes]:
        given = self.files
        if not isinstance(given, Mapping):
            raise SpecError("files", f"must be a mapping of names to contents, not {describe(given)}")
        if len(given) > _MAX_INPUT_FILES:
            raise SpecError(
                "files",
                f"are {len(given)}; {_MAX_INPUT_FILES} are the most",
                hint="pack them into one archive and let the program unpack it",
            )
        files: dict[str, bytes] = {}
        taken = FileTree()
        for name, content in given.items():
            path = entry_path("files", name)
            if not isinstance(name, str):
                raise SpecError(path, f"the name must be text, not {describe(name)}")
            try:
                safe = safe_name(name)
                taken.check(safe)
            except ValueError as error:
                raise SpecError(path, f"the name {error}") from None
            if safe == MAIN or safe.startswith(f"{MAIN}/"):
                raise SpecError(path, f"the program itself is {MAIN}; give the file another name")
            taken.add(safe)
            files[safe] = check_content(path, content)
        return files
