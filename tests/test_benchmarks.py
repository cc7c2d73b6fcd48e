"""Every benchmark runs at its smallest size, and its table has the expected shape. The values are not checked."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import Samples, Table

pytestmark = pytest.mark.slow


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_a_table_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--tiny", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (table,) = printed["tables"]
    assert table["name"] == name
    assert printed["environment"]["versions"]["gke-sandbox"]
    for row in table["rows"]:
        assert len(row["cells"]) == len(table["columns"]) or row["cells"] == ["not installed"]
    assert table["rows"] or table["notes"] == ["Skipped: no --kubeconfig."]


def test_an_unknown_benchmark_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["speed"])
    assert raised.value.code == 2
    assert "unknown benchmark speed; choose from import, footprint" in capsys.readouterr().err


def test_a_table_shows_median_spread_and_ratio_and_missing_clients() -> None:
    table = Table("example", ["ms", "count"])
    table.add("ours", Samples([3.0, 1.0, 2.0]), 4)
    table.add("theirs", Samples([8.0]), None)
    table.add_missing("another")
    table.add_ratio("ours / theirs")
    lines = [line.split() for line in table.text().splitlines()]
    assert lines[3:7] == [
        ["ours", "2", "(1-3)", "4"],
        ["theirs", "8", "(8-8)", "-"],
        ["another", "not", "installed"],
        ["ours", "/", "theirs", "0.25", "-"],
    ]
