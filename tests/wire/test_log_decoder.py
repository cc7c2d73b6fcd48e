"""One log, read more than once: each byte counts once, and a rotated log is detected."""

from __future__ import annotations

import pytest

from gke_sandbox._wire.dropped import DroppedFile, DroppedOutput
from gke_sandbox._wire.frames import Exit, Frame, Limits, Output, OutputFile, Start, encode
from gke_sandbox._wire.log_decoder import ReplayableLogDecoder

from ..pods import START, err, exit_frame, out

FILE = encode("file", b"eJwzAwAANwA3", "sum.txt")
LOG = b"".join([START, out("one "), err("trouble"), out("two"), FILE, exit_frame(3)])


def read(decoder: ReplayableLogDecoder, *chunks: bytes) -> list[Frame]:
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def test_the_content_of_a_log_is_collected() -> None:
    decoder = ReplayableLogDecoder(Limits())
    decoder.reopen()
    frames = read(decoder, LOG)
    assert [type(frame) for frame in frames] == [Start, Output, Output, Output, OutputFile, Exit]
    assert (decoder.stdout, decoder.stderr) == (b"one two", b"trouble")
    assert decoder.files == {"sum.txt": b"6"}
    assert (decoder.start, decoder.exit) == (frames[0], frames[-1])
    assert not decoder.rotated


@pytest.mark.parametrize("size", [1, 7, 200, 10_000])
def test_a_log_that_breaks_anywhere_and_is_reopened_counts_each_byte_once(size: int) -> None:
    for broken in range(len(LOG)):
        decoder = ReplayableLogDecoder(Limits())
        decoder.reopen()
        read(decoder, LOG[:broken])
        decoder.reopen()
        read(decoder, *(LOG[at : at + size] for at in range(0, len(LOG), size)))
        assert (decoder.stdout, decoder.stderr) == (b"one two", b"trouble"), broken
        assert decoder.files == {"sum.txt": b"6"}
        assert decoder.exit is not None
        assert not decoder.rotated


def test_a_log_that_breaks_again_during_the_skipped_part_loses_nothing() -> None:
    decoder = ReplayableLogDecoder(Limits())
    for end in (90, 3, 60, 0, 100, len(LOG)):
        decoder.reopen()
        read(decoder, LOG[:end])
    assert (decoder.stdout, decoder.stderr) == (b"one two", b"trouble")


KUBELET = b"failed to create fsnotify watcher: too many open files"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_text_that_the_kubelet_appends_to_a_read_is_not_part_of_the_log(size: int) -> None:
    """It can come after any byte, also in a frame, and again in the next read."""
    for broken in range(len(LOG) - 1):
        decoder = ReplayableLogDecoder(Limits())
        for log in (LOG[:broken] + KUBELET, LOG[:broken] + KUBELET, LOG):
            decoder.reopen()
            read(decoder, *(log[at : at + size] for at in range(0, len(log), size)))
        assert not decoder.rotated, broken
        assert (decoder.stdout, decoder.stderr) == (b"one two", b"trouble"), broken
        assert decoder.files == {"sum.txt": b"6"}
        assert (decoder.exit is not None, decoder.unframed) == (True, b"")


def test_text_outside_of_frames_is_kept_once_for_the_diagnosis() -> None:
    decoder = ReplayableLogDecoder(Limits())
    for _ in range(3):
        decoder.reopen()
        read(decoder, b"python3: ", b"not found\n")
    assert decoder.unframed == b"python3: not found\n"
    decoder.reopen()
    assert decoder.unframed == b"python3: not found\n"


def test_a_repeated_message_of_the_kubelet_does_not_count_as_progress() -> None:
    decoder = ReplayableLogDecoder(Limits())
    sizes = set()
    for _ in range(3):
        decoder.reopen()
        read(decoder, START, KUBELET)
        sizes.add(decoder.size)
    assert sizes == {len(START + KUBELET)}


def test_a_log_with_a_different_start_was_rotated_and_is_decoded_further() -> None:
    decoder = ReplayableLogDecoder(Limits())
    decoder.reopen()
    read(decoder, START + out("one "))
    decoder.reopen()
    read(decoder, b"the rest of a line\n" + out("two"), exit_frame(3))
    assert decoder.rotated
    assert decoder.stdout == b"one two"
    assert decoder.exit is not None


def test_a_second_start_frame_after_a_rotation_does_not_replace_the_first() -> None:
    decoder = ReplayableLogDecoder(Limits())
    decoder.reopen()
    (first,) = read(decoder, START)
    decoder.reopen()
    read(decoder, b"x\n" + START)
    assert decoder.start is first


def test_output_dropped_in_the_pod_and_by_the_client_is_added() -> None:
    decoder = ReplayableLogDecoder(Limits(output_bytes=4))
    decoder.reopen()
    dropped = {"out": 10, "err": 2, "files": 2, "named": [["big", "too_large", 7]]}
    read(decoder, START + out("abcdef") + encode("file", b"", "../a") + exit_frame(0, dropped=dropped))
    files = (DroppedFile("big", "too_large", 7), DroppedFile("../a", "refused_name"))
    assert decoder.dropped == DroppedOutput(stdout=12, stderr=2, files=3, named_files=files)
