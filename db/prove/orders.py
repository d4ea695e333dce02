"""Finds all orders of the steps of some requests that PostgreSQL can tell apart."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from db.prove.schedule import Run, Turn

# What a step can see of other requests' steps, and they of it, by its label. What is not here, as
# an insert, a delete and most statements of a merge, counts as a write.
OWN, SNAPSHOT, READ, SINGLE, WRITE, COMMIT = range(6)
ACTS = {
    "": OWN,  # the request is not sent yet, and begins with one of these, or with a single read
    "BEGIN": OWN,
    "ROLLBACK": OWN,  # after an error, with which PostgreSQL has ended the transaction itself
    "foreign_keys": OWN,  # reads the catalog, which no request changes
    "guard_status": OWN,
    "snapshot": SNAPSHOT,
    "select": READ,
    "select_many": READ,
    "surplus": READ,
    "LOCK": READ,  # which only LOCK_OUT, a write, conflicts with
    "get": SINGLE,  # a transaction of its own, with its own snapshot
    "kept": SINGLE,
    "list": SINGLE,
    "COMMIT": COMMIT,
}

# Pairs of kinds whose order PostgreSQL cannot tell. A snapshot has what was committed before it, so
# that it only knows its order among commits. Reads take no locks against reads. What is read under
# a snapshot of its own does not see a write that is not committed. A single read may end its
# request, as COMMIT does, so that its order to what begins one, a snapshot, counts.
INDEPENDENT = {
    *((OWN, each) for each in range(6)),
    *((SNAPSHOT, each) for each in (SNAPSHOT, READ, WRITE)),
    (READ, READ),
    (READ, SINGLE),
    (SINGLE, SINGLE),
    (SINGLE, WRITE),
}


def acts(turn: Turn) -> int:
    """Return what a step can see and be seen by; nobody knows yet of one without a label."""
    return ACTS.get(turn.label, WRITE)


def independent(one: Turn, other: Turn) -> bool:
    """Tell whether two turns of different requests, one after the other, may change places."""
    kinds = sorted(map(acts, (one, other)))
    return one.request != other.request and tuple(kinds) in INDEPENDENT


def dependent(_one: Turn, _other: Turn) -> bool:
    """Say that no two turns may change places, so that explore() runs every order."""
    return False


@dataclass
class Choice:
    """A place in the tree of all orders, and what was done there."""

    possible: list[Turn]
    asleep: dict[int, Turn]  # by the request: what would only lead to orders that were run before
    chosen: Turn

    def after(self, may_change_places: Callable[[Turn, Turn], bool]) -> dict[int, Turn]:
        """Return what sleeps behind the chosen turn."""
        return {n: turn for n, turn in self.asleep.items() if may_change_places(turn, self.chosen)}


async def draw(run: Run, random: Random) -> Run:
    """Take turns as `random` draws them, until all requests are answered."""
    while possible := await run.possible():
        await run.take(random.choice(possible))
    await run.finish()
    return run


def in_turn(turn: Turn, before: Iterable[Turn], kinds: Sequence[str]) -> bool:
    """Tell whether no equal request of a lower number has its first write, or commit, still to do.

    `before` are the turns until then, and `kinds` has what each request does. No two such steps may
    change places, so that what this says of an order it says of those that count as the same.
    """
    acted = {each.request for each in before if acts(each) >= WRITE}
    if acts(turn) < WRITE or turn.request in acted or not kinds:
        return True
    kind = kinds[turn.request - 1]
    return all(n in acted for n in range(1, turn.request) if kinds[n - 1] == kind)


async def explore(
    start: Callable[[], Awaitable[Run]],
    may_change_places: Callable[[Turn, Turn], bool] = independent,
    kinds: Sequence[str] = (),
) -> AsyncIterator[Run]:
    """Run all orders of the requests that `start` gives, each from the same state, and yield them.

    Of orders that differ only in neighbours that may change places one is run (Godefroid's sleep
    sets, "Partial-Order Methods for the Verification of Concurrent Systems", 1996). If `kinds` says
    what each request does, orders are left out in which only equal requests have changed places.
    """
    path: list[Choice] = []
    while True:
        run = await start()
        for choice in path:
            await run.reach(choice.chosen.request)
            await run.take(choice.chosen._replace(label=""))
            choice.chosen = run.turns[-1]
        new = True
        while new and (possible := await run.possible()):
            asleep = path[-1].after(may_change_places) if path else {}
            possible = [turn for turn in possible if in_turn(turn, run.turns, kinds)]
            awake = [turn for turn in possible if turn.request not in asleep]
            new = bool(awake)
            if awake:
                await run.take(awake[0])
                path.append(Choice(possible, asleep, run.turns[-1]))
        await run.finish()
        if new:
            yield run
        while path:
            last = path[-1]
            last.asleep[last.chosen.request] = last.chosen
            if rest := [turn for turn in last.possible if turn.request not in last.asleep]:
                last.chosen = rest[0]
                break
            path.pop()
        else:
            return
