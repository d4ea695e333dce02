"""Each fault strikes once, for a moment, and the verdict finds services that are broken.

Only `make faults` without QUICK judges seconds.
"""

import random
import sys
from collections.abc import Iterator

import pytest

from db.settings import Settings
from tests.faults.faults import FAULTS
from tests.faults.proxy import Proxy
from tests.faults.scene import Fault, event_loop
from tests.faults.server import Server, Skipped, running
from tests.faults.trial import SHORT, trial
from tests.support.service import LIMIT, serving, temporary_data_dir, until

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def faulty_server() -> Iterator[Server]:
    """A server of these tests' own, which faults may stop."""
    with temporary_data_dir() as data_dir, running(data_dir) as server:
        yield server


@pytest.fixture(scope="module")
def seed() -> str:
    return str(random.getrandbits(32))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_and_nothing_doubled(
    fault: Fault, faulty_server: Server, seed: str
) -> None:
    try:
        result = trial(fault, faulty_server, SHORT, seed)
    except Skipped as reason:
        pytest.skip(str(reason))
    print(f"seed {seed}: {result}")
    assert result.broken == []


def test_idle_connections_that_died_unseen_cost_one_request(faulty_server: Server) -> None:
    proxy = Proxy(faulty_server.new_database(), random.Random())
    with event_loop() as start:
        start(proxy.listen()).result(LIMIT)
        with serving(DATABASE_URL=proxy.url, RETRY_DEADLINE="3") as service:
            # The service has looked at the database by then. Else its own look would be the one
            # request that a dead connection costs.
            service.await_ready()
            until(lambda: proxy.flowing == Settings().pool_size)
            start(proxy.hold()).result(LIMIT)
            start(proxy.release(lost=True)).result(LIMIT)
            posts = [service.post("/departments", name=f"number {each}") for each in range(3)]
            assert [post.status_code for post in posts] == [503, 201, 201]
        start(proxy.close()).result(LIMIT)


# Each control has a variant of the service, the fault that shows what is wrong with it, and a part
# of the verdict.
CONTROLS = (
    ("answer before COMMIT", "cut before COMMIT arrives", "lost: "),
    ("REPEATABLE READ", "callers gone", "2 rows: "),
    ("no retry", "a backend killed every few milliseconds", "-> 500"),
)


@pytest.mark.parametrize(("variant", "name", "expected"), CONTROLS)
def test_the_verdict_finds_a_broken_service(
    variant: str, name: str, expected: str, faulty_server: Server, seed: str
) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    command = [sys.executable, "-m", "tests.proof.variants", variant]
    result = trial(fault, faulty_server, SHORT, seed, *command, VARIANT=variant)
    assert expected in "\n".join(result.broken)
