"""The runner's input: requests with either delivery, invalid requests, and writable directories."""

from __future__ import annotations

import ast
import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from gke_sandbox._wire import runner
from gke_sandbox._wire.payload import runner_text

from .runner_driver import (
    DELIVERIES,
    FROM_ENVIRONMENT,
    PYTHON,
    Delivery,
    Program,
    Ran,
    command,
    config_map,
    environment,
    read_frames,
    run,
    started,
    stdin_request,
)


def bare(source: str) -> str:
    """The syntax tree without docstrings."""
    tree = ast.parse(source, feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def test_the_sent_source_is_equivalent_and_has_about_21_kb() -> None:
    assert runner.__file__ is not None
    assert bare(runner_text()) == bare(Path(runner.__file__).read_text(encoding="utf-8"))
    assert len(runner_text().encode()) <= 21_500


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_code_in_many_pieces_is_joined(delivery: Delivery) -> None:
    lines = [f"x{number} = 'é☃😀'" for number in range(20_000)]
    ran = run("\n".join(lines) + "\nprint(x19999)\n", delivery)
    assert ran.stdout == "é☃😀\n".encode()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_files_and_stdin_of_any_bytes_arrive(delivery: Delivery) -> None:
    noise = bytes(range(256)) * 700
    code = "import sys\nsys.stdout.buffer.write(open('d/é.bin', 'rb').read())\n"
    code += "sys.stderr.buffer.write(sys.stdin.buffer.read())\n"
    ran = run(Program(code, files={"d/é.bin": noise, "empty": b""}, stdin=noise[::-1]), delivery)
    assert (ran.stdout, ran.stderr) == (noise, noise[::-1])


def test_a_compressed_config_map_is_decompressed() -> None:
    code = "# " + "x" * 500_000 + "\nprint(len(open('zeros', 'rb').read()), len(input()))\n"
    ran = run(Program(code, files={"zeros": bytes(3 << 20)}, stdin=b"y" * 1000), "mount", packed=True)
    assert ran.stdout == b"3145728 1000\n"


def test_a_configmap_volume_with_its_links_is_read(tmp_path: Path) -> None:
    """The kubelet mounts a directory of links: ``request -> ..data/request -> ..2026_01_01/request``."""
    values = config_map(Program("print('linked')"), "mount")
    argv, variables = command(values, "mount", tmp_path)
    app = tmp_path / "app"
    (app / "..2026_01_01").mkdir()
    for key in values:
        (app / key).rename(app / "..2026_01_01" / key)
        (app / key).symlink_to(f"..data/{key}")
    (app / "..data").symlink_to("..2026_01_01")
    done = subprocess.run(argv, env=variables, cwd="/", stdin=subprocess.DEVNULL, capture_output=True)
    assert [frame.payload for frame in read_frames(done.stdout)][1:-1] == [
        b"linked",
        b"\n",
    ] or b"linked" in done.stdout


REQUEST = json.loads(config_map(Program("print(1)"), "env")["request"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, b"request"),
        ({"request": b""}, b"cannot read the request"),
        ({"request": b"not json"}, b"cannot read the request"),
        ({"request": b"[1, 2]"}, b"cannot read the request"),
        ({"request": b'{"protocol": 1}'}, b"KeyError: 'code'"),
        ({"request": b"\xff\xfe"}, b"UnicodeDecodeError"),
        (
            {"request": json.dumps({**REQUEST, "protocol": 2}).encode()},
            b"protocol is 2, but this runner supports 1",
        ),
        ({"request": json.dumps({**REQUEST, "code": ["text", ["code_7"]]}).encode()}, b"code_7"),
        ({"request": json.dumps({**REQUEST, "code": ["base64", ["code_0"]]}).encode(), "code_0": b"A"}, b"Error"),
        ({"request": json.dumps({**REQUEST, "code": ["zlib", ["code_0"]]}).encode(), "code_0": b"A"}, b"Error"),
        ({"request": json.dumps({**REQUEST, "code": ["rot13", ["code_0"]]}).encode(), "code_0": b"A"}, b"Error"),
        ({"request": json.dumps({**REQUEST, "limits": {}}).encode(), "code_0": b"1"}, b"log_bytes"),
    ],
)
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_an_invalid_request_gives_a_one_line_error(
    delivery: Delivery, values: dict[str, bytes], reason: bytes
) -> None:
    if delivery == "attach":
        values = {"wait": b"30", "request": b"", "contents": b"", **values}
        reason = reason if reason != b"request" else b"cannot read the request"
    ran = run("", delivery, values={"runner": runner_text().encode(), **values})
    assert [frame.kind for frame in ran.frames] == ["start", "err"]
    assert ran.stderr.startswith(b"gke-sandbox: the program was not started: ")
    assert reason in ran.stderr
    assert ran.stderr.count(b"\n") == 1
    assert (ran.status, ran.noise) == (125, b"")


def test_similar_variables_do_not_hide_a_mounted_request(tmp_path: Path) -> None:
    env = {**environment(tmp_path), "GKE_SANDBOX_SOMETHING": "else"}
    code = "import os\nprint([name for name in os.environ if name.startswith('GKE_')])\n"
    assert run(code, "mount", env=env, base=tmp_path).stdout == b"[]\n"


def on_stdin(given: bytes, base: Path, wait: str = "30") -> Ran:
    """Start a runner that waits for its request, and write `given` to its stdin, which then ends."""
    argv, variables = command(config_map(Program(""), "attach"), "attach", base)
    variables["GKE_SANDBOX_WAIT"] = wait
    done = subprocess.run(argv, env=variables, cwd=base, input=given, capture_output=True, timeout=50)
    return Ran(read_frames(done.stdout), done.returncode, done.stdout, done.stderr)


REQUEST_ON_STDIN = stdin_request(config_map(Program("print(1)", stdin=b"in", files={"x": b"file"}), "attach"))
assert REQUEST_ON_STDIN is not None


def test_the_end_of_stdin_without_a_request_ends_the_runner(tmp_path: Path) -> None:
    ran = on_stdin(b"", tmp_path)
    assert [frame.kind for frame in ran.frames] == ["err"]
    assert ran.stderr == b"gke-sandbox: the program was not started: stdin ended without a request\n"
    assert (ran.noise, ran.status) == (b"", 0)


def test_a_runner_without_a_request_ends_after_its_idle_time(tmp_path: Path) -> None:
    argv, variables = command(config_map(Program(""), "attach"), "attach", tmp_path)
    variables["GKE_SANDBOX_WAIT"] = "0.01"
    with subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        (frame,) = read_frames(process.stdout.read())
        assert frame.payload == b"gke-sandbox: the program was not started: no request came\n"
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("cut", [1, 3, 8, 20, 200, len(REQUEST_ON_STDIN) - 1])
def test_a_program_does_not_start_if_stdin_ends_within_its_request(tmp_path: Path, cut: int) -> None:
    ran = on_stdin(REQUEST_ON_STDIN[:cut], tmp_path)
    assert [frame.kind for frame in ran.frames] == ["err"]
    what = b"gke-sandbox: the program was not started: stdin ended after %d bytes of the request\n"
    assert (ran.stderr, ran.status) == (what % cut, 125)
    assert list(tmp_path.iterdir()) == []


def test_lengths_that_are_not_numbers_are_reported(tmp_path: Path) -> None:
    ran = on_stdin(b"GET / HTTP/1.1\r\n\r\n", tmp_path)
    assert [frame.kind for frame in ran.frames] == ["err"]
    assert ran.stderr.startswith(b"gke-sandbox: the program was not started: ")
    assert ran.status == 125


def test_a_request_in_many_writes_is_put_together(tmp_path: Path) -> None:
    noise = os.urandom(3_000_000)
    values = config_map(
        Program("import sys; sys.stdout.write(str(len(open('noise', 'rb').read())))", files={"noise": noise}),
        "attach",
    )
    request = stdin_request(values)
    assert request is not None
    argv, variables = command(values, "attach", tmp_path)
    with subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for start, end in [(0, 1), (1, 9), (9, 30), (30, 1000), (1000, 70_000), (70_000, len(request))]:
            process.stdin.write(request[start:end])
            process.stdin.flush()
        process.stdin.close()
        frames = read_frames(process.stdout.read())
    assert [frame.payload for frame in frames if frame.kind == "out"] == [b"3000000"]


def test_the_runner_waits_until_its_exit_frame_is_acknowledged(tmp_path: Path) -> None:
    with started(Program("raise SystemExit(3)"), "attach", base=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        log = b""
        while b"\x1eexit " not in log:
            log += os.read(process.stdout.fileno(), 65536)
        process.stdin.write(b"\n")  # fails if the runner has ended
        process.stdin.flush()
        assert process.wait(timeout=8) == 3


def test_the_request_on_stdin_adds_environment_variables(tmp_path: Path) -> None:
    values = config_map(Program("import os; print(os.environ['GREETING'], os.environ['ADDED'])"), "attach")
    request = {**json.loads(values["request"]), "env": {"GREETING": "é", "ADDED": "new"}}
    values["request"] = json.dumps(request).encode()
    assert run("", "attach", values=values, base=tmp_path).stdout.decode() == "é new\n"


@pytest.mark.parametrize(
    ("home", "keep", "kept"),
    [
        ("/dev/shm", False, True),
        ("/home/jovyan", False, False),
        ("/dev/null", False, False),
        ("/", False, False),
        ("", False, False),
        (None, False, False),
        ("/home/jovyan", True, True),
        ("/", True, True),
    ],
)
def test_a_home_set_by_the_image_is_kept_if_it_is_writable_and_one_set_by_the_caller_always(
    tmp_path: Path, home: str | None, keep: bool, kept: bool
) -> None:
    env = environment(tmp_path) | ({} if home is None else {"HOME": home})
    program = Program("import os\nprint(os.environ['HOME'], end='')", keep_home=keep)
    found = run(program, env=env, base=tmp_path).stdout.decode()
    assert found == (home if kept else str(tmp_path / "sandbox" / "home"))


THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
)


@pytest.mark.parametrize(
    "given", [{}, {"OMP_NUM_THREADS": "7"}, {"LOKY_MAX_CPU_COUNT": "", "MKL_NUM_THREADS": "2"}]
)
def test_numbers_of_threads_are_the_cpu_limit_unless_the_image_sets_them(
    tmp_path: Path, given: dict[str, str]
) -> None:
    program = Program(f"import json, os\nprint(json.dumps([os.environ[name] for name in {THREADS}]))", cpus=3)
    found = json.loads(run(program, env=environment(tmp_path) | given, base=tmp_path).stdout)
    assert found == [given.get(name) or "3" for name in THREADS]


USER = "import getpass, os\nprint(getpass.getuser(), os.environ['USER'], os.environ['LOGNAME'])"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"USER": "ana"}, "ana ana ana\n"),
        ({"LOGNAME": "ana"}, "ana ana ana\n"),
        ({"USER": "ana", "LOGNAME": "eva"}, "eva ana eva\n"),
        ({}, "{0} {0} {0}\n".format(pwd.getpwuid(os.getuid()).pw_name)),
    ],
)
def test_a_user_name_of_the_image_is_kept(tmp_path: Path, given: dict[str, str], found: str) -> None:
    assert run(USER, env=environment(tmp_path) | given, base=tmp_path).stdout.decode() == found


def test_a_user_without_an_entry_in_passwd_has_a_name_and_a_writable_home(tmp_path: Path) -> None:
    """As with run_as_user 1001 and an image whose HOME belongs to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the user")
    code = f"{USER}\nprint(os.path.dirname(os.environ['HOME']) == os.path.dirname(os.getcwd()))"
    # The effective user remains root, so that it can read the interpreter.
    become = "import os, sys; os.setreuid(987_654, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    env = {**environment(tmp_path), "HOME": "/sys"}
    ran = run(code, env=env, base=tmp_path, prefix=[PYTHON, "-c", become])
    assert ran.stdout == b"sandbox sandbox sandbox\nTrue\n"


def test_an_existing_workspace_directory_is_not_reused(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    ran = run("import os\nprint(os.getcwd(), end='')", base=tmp_path)
    assert list((tmp_path / "sandbox").iterdir()) == []
    assert Path(ran.stdout.decode()).parent.parent == tmp_path


def run_with_mounts(mounts: tuple[str, ...], program: Program) -> tuple[bytes, int]:
    """Run a program with separate file systems, such as ``/tmp ro``. Return its log and exit status."""
    script = "".join(f"mount -t tmpfs -o {options} none {place} && " for place, options in map(str.split, mounts))
    prefix = ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("mounts need privileges that we do not have")
    argv, variables = command(config_map(program, "env"), "env", Path("/"), {"TMPDIR": "/nowhere"})
    argv[0] = os.path.realpath(PYTHON)  # a virtual environment may be in /tmp
    done = subprocess.run([*prefix, *argv], env=variables, stdin=subprocess.DEVNULL, capture_output=True)
    return done.stdout, done.returncode


@pytest.mark.parametrize(
    ("mounts", "place"),
    [
        (("/tmp size=1m", "/dev/shm size=1m"), "/tmp/sandbox/work"),
        (("/tmp ro", "/dev/shm size=1m"), "/dev/shm/sandbox/work"),
        (("/tmp size=4k", "/dev/shm size=1m"), "/dev/shm/sandbox/work"),
    ],
    ids=["tmp", "tmp is read-only", "tmp is full"],
)
def test_the_workspace_is_in_tmp_or_else_in_dev_shm(mounts: tuple[str, ...], place: str) -> None:
    program = Program("import os\nprint(os.getcwd(), end='')", files={"data": bytes(10_000)})
    log, status = run_with_mounts(mounts, program)
    assert [frame.payload for frame in read_frames(log) if frame.kind == "out"] == [place.encode()]
    assert status == 0


def test_no_writable_directory_is_reported() -> None:
    log, status = run_with_mounts(("/tmp ro", "/dev/shm ro"), Program("print(1)"))
    start, err = read_frames(log)
    assert (start.kind, err.kind) == ("start", "err")
    assert err.payload.startswith(b"gke-sandbox: the program was not started: no directory is writable: ")
    assert b"'/tmp/sandbox'; [Errno 30] Read-only file system: '/dev/shm/sandbox'" in err.payload
    assert status == 125


def test_files_next_to_the_runner_do_not_shadow_the_standard_library(tmp_path: Path) -> None:
    """With environment variables that is the image's working directory, with a volume the ConfigMap's."""
    for name in ("select", "time", "zlib", "_json", "binascii", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    assert run("open('x', 'w').close()", "env", base=tmp_path).exit["code"] == 0


def test_the_runner_imports_few_modules(tmp_path: Path) -> None:
    """The imports are measured: `json`, `signal` and `tempfile` take longer than the fork."""
    code = "import sys; print(*sys.modules)"
    values = config_map(Program(code), "env")
    variables = {f"GKE_SANDBOX_{key.upper()}": value.decode() for key, value in values.items()}
    options = {"env": {**variables, "TMPDIR": str(tmp_path)}, "stdin": subprocess.DEVNULL, "capture_output": True}
    plain = subprocess.run([PYTHON, "-S", "-c", code], **options).stdout.split()
    log = subprocess.run([PYTHON, "-S", "-u", "-c", FROM_ENVIRONMENT], **options).stdout
    ours = b"".join(frame.payload for frame in read_frames(log) if frame.kind == "out").split()
    few = "__future__ _json _signal mmap pwd time select os os.path posixpath genericpath stat _stat"
    few += " _collections_abc"
    # posixpath imports errno since 3.13; os imports abc, and os.fdopen io, which 3.14 does not load at its start.
    few += " errno abc _abc io"
    assert {name.decode() for name in set(ours) - set(plain)} <= set(few.split())


OTHERS = [name for name in (f"python3.{minor}" for minor in range(8, 16)) if shutil.which(name)]


@pytest.mark.parametrize("name", OTHERS)
def test_the_runner_works_with_every_installed_python(name: str, tmp_path: Path) -> None:
    """The image's Python can be older than the client's."""
    if subprocess.run([name, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{name} is a name only")
    code = "import sys\nprint(sys.version_info[:2], input())\nopen('made', 'w').write('x')\n1/0\n"
    argv, variables = command(config_map(Program(code, stdin=b"in"), "env"), "env", tmp_path)
    done = subprocess.run([name, *argv[1:]], env={**os.environ, **variables}, capture_output=True)
    frames = read_frames(done.stdout)
    assert f'"python": "{name[6:]}.'.encode() in frames[0].payload
    assert b"".join(f.payload for f in frames if f.kind == "out") == f"(3, {name[8:]}) in\n".encode()
    assert b"".join(f.payload for f in frames if f.kind == "err").endswith(
        b"ZeroDivisionError: division by zero\n"
    )
    assert [f.meta for f in frames if f.kind == "file"] == ["made"]
    assert done.returncode == 1
