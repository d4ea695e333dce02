"""The series of /metrics are summed up from the files of all workers."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import ROOT
from web.series import NAMES, SUFFIX, Metric, Series

SECONDS = Metric("histogram", "onerow_seconds", "Seconds.", ("number",), (0.5, 1.0))
ROWS = Metric("counter", "onerow_rows", "Rows.", ("name",))
SIZE = Metric("gauge", "onerow_size", "Size.")
METRICS = [SECONDS, ROWS, SIZE]


def values(series: Series) -> dict[tuple[str, ...], float]:
    """Return the value of each sample, by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in series.collect()
        for sample in family.samples
    }


def test_all_workers_sum_up(tmp_path: Path) -> None:
    one, other = Series(tmp_path, METRICS), Series(tmp_path, METRICS)
    one.observe(SECONDS, 1, value=0.5)
    other.observe(SECONDS, 1, value=0.75)
    other.observe(SECONDS, 1, value=2)
    one.add(ROWS, 'a "name"\nü', number=2)
    other.add(ROWS, "another")
    one.set(SIZE, 3)
    other.set(SIZE, 4)
    for each in one, other:
        assert values(each) == {
            ("onerow_seconds_bucket", "1", "0.5"): 1,
            ("onerow_seconds_bucket", "1", "1.0"): 2,
            ("onerow_seconds_bucket", "1", "+Inf"): 3,
            ("onerow_seconds_count", "1"): 3,
            ("onerow_seconds_sum", "1"): 3.25,
            ("onerow_rows_total", 'a "name"\nü'): 2,
            ("onerow_rows_total", "another"): 1,
            ("onerow_size",): 7,
        }


# With long names a file has no room for another name, and with short ones none for its numbers.
@pytest.mark.parametrize("name", ["name " * 20, ""], ids=["names", "numbers"])
def test_a_full_file_is_followed_by_another(tmp_path: Path, name: str) -> None:
    one, other = Series(tmp_path, METRICS), Series(tmp_path, METRICS)
    labels: set[str] = set()
    while len(list(tmp_path.iterdir())) < 4:
        labels.add(label := f"{name}{len(labels)}")
        one.observe(SECONDS, label, value=1)
    assert len(labels) > 500
    found = values(other)
    assert found == values(one)
    assert {key[1] for key in found} == labels


def test_a_worker_that_ended_counts_in_no_gauge(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from web.series import *\n"
        "rows = Metric('counter', 'onerow_rows', '', ('name',))\n"
        "size = Metric('gauge', 'onerow_size', '')\n"
        "series = Series(Path(sys.argv[1]), [rows, size])\n"
        "series.add(rows, 'a'); series.set(size, 8)\n"
        "print(flush=True); input()"
    )
    own = Series(tmp_path, METRICS)
    own.set(SIZE, 1)
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdin=-1, stdout=-1
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        assert values(own) == {("onerow_rows_total", "a"): 1, ("onerow_size",): 9}
        worker.kill()
    assert values(own) == {("onerow_rows_total", "a"): 1, ("onerow_size",): 1}


def test_metrics_of_another_version_are_passed_over(tmp_path: Path) -> None:
    other = Series(tmp_path, [])
    other.add(Metric("counter", "onerow_unknown", "", ()))
    other.observe(Metric("histogram", SECONDS.name, "", ("number",), (7.0,)), 1, value=0.5)
    other.add(ROWS, "a", number=100)
    (tmp_path / f"begun{SUFFIX}").write_bytes(bytes(NAMES // 2))
    assert values(Series(tmp_path, METRICS)) == {("onerow_rows_total", "a"): 100}


def test_a_file_that_cannot_be_read_is_no_smaller_sum(tmp_path: Path) -> None:
    series = Series(tmp_path, METRICS)
    (tmp_path / f"other{SUFFIX}").mkdir()
    with pytest.raises(OSError, match="directory"):
        values(series)


def test_a_worker_without_a_file_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "onerow"):
        series = Series(Path("/dev/full"), METRICS)
    assert "each worker has only its own metrics" in caplog.text
    series.add(ROWS, "a")
    assert values(series) == {("onerow_rows_total", "a"): 1}
