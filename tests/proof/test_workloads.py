"""The service passes generated concurrent workloads, and every broken variant is caught by one."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings

from tests.proof.search import CONTROLS, EXAMPLES, catch, running, verify
from tests.proof.workloads import Runner, Workload, workloads

LONG = pytest.mark.long


@pytest.fixture(
    scope="module",
    params=["", pytest.param("pipeline", marks=LONG), pytest.param("none", marks=LONG)],
    ids=["as it is", "with pauses", "plain"],
)
def runner(request: pytest.FixtureRequest, new_database: Callable[[], str]) -> Iterator[Runner]:
    with running(request.param, new_database()) as runner:
        yield runner


@pytest.mark.parametrize("examples", [15, pytest.param(100, marks=LONG)])
def test_the_service_is_linearizable_and_makes_no_second_row(runner: Runner, examples: int) -> None:
    @settings(max_examples=examples)
    @given(workload=workloads())
    def property_(workload: Workload) -> None:
        verify(runner, workload)

    property_()


# This one may pass a thousand workloads, so only `make stress` draws them. A schedule catches it in
# test_variants.py.
RARE = "isolation set once"


# `make test` shows one of them, and `make proof` the others but RARE.
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[] if name == "READ COMMITTED" else LONG)
        for name in CONTROLS
        if name != RARE
    ],
)
def test_broken_variants_are_caught(
    variant: str, database: str, record_property: Callable[[str, object], None]
) -> None:
    caught = catch(variant, database)
    assert caught.workload is not None, f"not caught in {EXAMPLES} workloads"
    # Only this variant is meant to fail so. In the others it would be a mistake of the variant.
    unanswered = caught.report.startswith("not every call was answered")
    assert unanswered == (variant == "no retry"), caught.report
    assert "-> 500" not in caught.report
    record_property(f"{variant}: caught after {caught.found_after} workloads", caught.report)
