"""Three requests over HTTP, in every order of their messages, leave what they leave one by one."""

import pytest

from tests.proof.interleavings import Meeting, stage
from tests.proof.three import MEETINGS, meet

pytestmark = [pytest.mark.anyio, pytest.mark.long]

# The others take minutes each, and `make exhaustive` has them.
BRIEF = MEETINGS[:2]


@pytest.mark.parametrize("meeting", BRIEF, ids=str)
async def test_three_requests_in_every_order(meeting: Meeting, database: str) -> None:
    async with stage(database) as there:
        found = await meet(there, meeting, drawn=100)
    assert found.orders > 100
