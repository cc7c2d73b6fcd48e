"""Which files are returned; nothing in the working directory can block or deceive the runner."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .runner_driver import DELIVERIES, Delivery, Program, on_disk, run


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory whose content neither pytest nor shutil may be able to remove."""
    path = Path(tempfile.mkdtemp(prefix="runner-"))
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_only_created_or_changed_files_are_returned(delivery: Delivery) -> None:
    """A change of equal length counts, even within the same tick of the clock."""
    inputs = dict.fromkeys(("kept", "read", "rewritten", "appended", "d/kept", "d/rewritten"), b"aaaa")
    code = (
        "open('read').read()\n"
        "for name in ('rewritten', 'd/rewritten'): open(name, 'w').write('bbbb')\n"
        "open('appended', 'a').write('b')\n"
        "open('d/new', 'w').write('c')\n"
    )
    ran = run(Program(code, files=inputs), delivery)
    assert ran.files == {"rewritten": b"bbbb", "d/rewritten": b"bbbb", "appended": b"aaaab", "d/new": b"c"}
    assert [frame.meta for frame in ran.of("file")] == sorted(ran.files)
    assert ran.exit["dropped"]["files"] == 0


def test_a_file_replaced_by_one_of_equal_size_and_mtime_is_returned() -> None:
    code = (
        "import os\nstat = os.stat('in')\nopen('t', 'w').write('bbbb')\n"
        "os.utime('t', ns=(stat.st_atime_ns, stat.st_mtime_ns))\nos.rename('t', 'in')\n"
    )
    assert run(Program(code, files={"in": b"aaaa"})).files == {"in": b"bbbb"}


def test_neither_main_py_nor_bytecode_is_returned() -> None:
    code = (
        "import os\nimport helper\nfrom pack import inner\nopen('main.py', 'a').write('# changed')\n"
        "os.mkdir('sub')\nopen('sub/main.py', 'w').write('mine')\nprint(os.path.isdir('pack/__pycache__'))\n"
    )
    ran = run(Program(code, files={"helper.py": b"", "pack/__init__.py": b"", "pack/inner.py": b""}))
    assert ran.stdout == b"True\n"
    assert ran.files == {"sub/main.py": b"mine"}


def test_only_regular_files_are_returned() -> None:
    code = """
import os, socket
os.mkfifo("fifo")
os.symlink("/etc/passwd", "link")
os.symlink("/etc", "directory")
os.symlink(".", "loop")
os.symlink("missing", "broken")
socket.socket(socket.AF_UNIX).bind("socket")
open("file", "w").write("x")
os.link("file", "hard")
os.makedirs("empty/empty")
"""
    ran = run(code)
    assert ran.files == {"file": b"x", "hard": b"x"}
    assert ran.exit["dropped"]["files"] == 0


def test_files_over_a_limit_are_omitted_and_named() -> None:
    code = (
        "open('a', 'wb').write(b'x' * 600)\n"
        "open('b', 'wb').write(b'x' * 500)\n"  # does not fit beside a
        "open('c', 'wb').write(b'x' * 400)\n"
        "open('d', 'wb').write(b'')\n"
        "open('e', 'wb').write(b'')\n"  # the fourth
        "open('f', 'wb').truncate(1 << 40)\n"
    )
    ran = run(Program(code, file_bytes=1000, max_files=3))
    assert {name: len(data) for name, data in ran.files.items()} == {"a": 600, "c": 400, "d": 0}
    assert ran.exit["dropped"]["files"] == 3
    assert ran.exit["dropped"]["named"] == [
        ["b", "too_large", 500],
        ["e", "too_many", 0],
        ["f", "too_large", 1 << 40],
    ]


def test_a_limit_of_zero_files_returns_none() -> None:
    ran = run(Program("for name in 'abc': open(name, 'w').close()", max_files=0))
    assert ran.files == {}
    assert ran.exit["dropped"]["files"] == 3
    assert ran.exit["dropped"]["named"] == [[name, "too_many", 0] for name in "abc"]


def test_file_names_are_returned_unchanged_and_invalid_ones_are_refused() -> None:
    code = r"""
for name in ("h\u00e9llo \u2603 \U0001f600", "quote\"s 'and' back\\slash", " ", "-rf", "a%sb%%"):
    open(name, "w").write("x")
for name in (b"not utf-8 \xff", b"new\nline", b"tab\t"):
    open(name, "w").write("x")
"""
    ran = run(code)
    assert ran.files.keys() == {"héllo ☃ 😀", "quote\"s 'and' back\\slash", " ", "-rf", "a%sb%%"}
    assert ran.exit["dropped"]["files"] == 3
    assert ran.exit["dropped"]["named"] == [
        [name, "refused_name", 1] for name in ("new\nline", "not utf-8 \udcff", "tab\t")
    ]


def test_a_tree_deeper_than_any_path_neither_hangs_nor_overflows(base: Path) -> None:
    code = (
        "import os\nfor _ in range(1100):\n    os.mkdir('deep')\n    os.chdir('deep')\nopen('end', 'w').close()\n"
    )
    ran = run(code, base=base)
    assert ran.exit["code"] == 0
    ((name, *why),) = ran.exit["dropped"]["named"]
    assert (set(name.split("/")), why) == ({"deep"}, ["unreadable", None])
    assert ran.exit["dropped"]["files"] == 1


def test_the_number_of_searched_directory_entries_is_bounded(base: Path) -> None:
    code = "import os\nfor n in range(21_000): os.close(os.open(str(n), os.O_CREAT))\n"
    ran = run(code, base=base)
    assert len(ran.files) == 100
    assert ran.exit["dropped"]["files"] == 20_000 - 100 - 1 + 1  # main.py is an entry; the rest counts as one
    assert ran.exit["dropped"]["named"][0] == [".", "not_searched", None]
    assert {why for _, why, _ in ran.exit["dropped"]["named"][1:]} == {"too_many"}


@pytest.mark.parametrize(
    ("name", "fits"), [("f{:03}", 100), ("f{:03}" + "\u20ac" * 70, 13), ("f{:03}" + "x" * 240, 22)]
)
def test_the_names_of_dropped_files_are_bounded(name: str, fits: int) -> None:
    """The exit frame has a reserved room in the log."""
    code = f"for n in range(300): open({name!r}.format(n), 'w').close()\n"
    ran = run(Program(code, max_files=0, log_bytes=10_000))
    assert ran.exit["dropped"]["files"] == 300
    assert ran.exit["dropped"]["named"] == [[name.format(n), "too_many", 0] for n in range(fits)]
    assert on_disk(ran.log) <= 10_000


def test_an_unreadable_file_or_directory_is_named() -> None:
    code = (
        "import os\nopen('secret', 'w').write('x')\nos.chmod('secret', 0)\nos.mkdir('closed')\n"
        "open('closed/inside', 'w').close()\nos.chmod('closed', 0)\nopen('ok', 'w').close()\n"
    )
    # Root needs a capability to ignore file modes.
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    ran = run(code, prefix=prefix)
    assert ran.files == {"ok": b""}
    assert ran.exit["dropped"]["named"] == [["closed", "unreadable", None], ["secret", "unreadable", 1]]


def test_a_working_directory_that_is_gone_has_no_files() -> None:
    ran = run("import os, shutil\nopen('x', 'w').close()\nshutil.rmtree(os.getcwd())\n")
    assert ran.files == {}
    assert ran.exit["dropped"]["files"] == 0


def test_a_working_directory_that_became_a_link_is_not_followed() -> None:
    ran = run("import os\nhere = os.getcwd()\nos.rename(here, here + '2')\nos.symlink('/etc', here)\n")
    assert ran.files == {}


def test_files_outside_the_working_directory_are_not_returned() -> None:
    code = (
        "import os, tempfile\ntempfile.mkstemp()\nopen(os.path.expanduser('~/x'), 'w').close()\n"
        "print(os.path.realpath(tempfile.gettempdir()).startswith(os.getcwd()))\n"
    )
    ran = run(code)
    assert ran.stdout == b"False\n"
    assert ran.files == {}


def test_large_incompressible_files_are_returned_whole() -> None:
    code = "import os\nopen('noise', 'wb').write(os.urandom(2 << 20))\n"
    code += "open('zeros', 'wb').truncate(2 << 20)\n"
    files = run(code).files
    assert len(files["noise"]) == 2 << 20
    assert files["zeros"] == bytes(2 << 20)


def test_an_open_unflushed_file_is_returned_with_its_content_on_disk() -> None:
    code = "import os\nf = open('log', 'w')\nf.write('flushed')\nf.flush()\nf.write('lost')\nos._exit(0)\n"
    assert run(code).files == {"log": b"flushed"}
