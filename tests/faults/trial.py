"""Tries a fault under traffic: strikes, lifts, waits until all is served again, and judges."""

import random
from contextlib import nullcontext
from time import monotonic
from typing import NamedTuple

from tests.faults.scene import POOL_SIZE, WORKERS, Fault, Scene, staged
from tests.faults.server import Server, on_a_disk_of, sessions, tables
from tests.faults.verdict import READY, Result, Strike, judge


class Extent(NamedTuple):
    """The length of a trial, and whether it is judged by seconds, too."""

    requests: int  # how many must be answered, and not by 503
    strikes: int
    bounds: bool = True  # False where others use the machine, too: see verdict.judge()


# Seconds for which an outage goes on after the time in which /ready must have noticed it.
DOWN = 1.0

FULL = Extent(10_000, 5)
SHORT = Extent(800, 1, bounds=False)


def trial(
    fault: Fault, server: Server, extent: Extent, seed: str, *command: str, **settings: str
) -> Result:
    """Try the fault; return the judgement.

    `command` and `settings` go to tests.support.service.serving(). Raises Skipped where the fault
    cannot be made here.
    """
    rng = random.Random(f"{seed} {fault.name}")
    with (
        on_a_disk_of(fault.disk) if fault.disk else nullcontext(server) as server,
        staged(fault, server, rng, *command, **settings) as scene,
    ):
        scene.wait(lambda: len(scene.workers()) == WORKERS)
        workers = scene.workers()
        strikes = [strike(fault, scene, extent) for _ in range(extent.strikes)]
        scene.wait(lambda: scene.traffic.answered >= extent.requests)
        replaced = scene.workers() != workers
        status = scene.end()
        rows = tables(scene.database)
        result = judge(fault, strikes, scene.traffic, rows, bounds=extent.bounds)
        log = scene.service.log.read_text()
        # On a busy machine the supervisor may also replace a worker that does not answer it for
        # ten seconds.
        ended = "ended, with exit code" in log or (replaced and extent.bounds)
        if ended and not fault.kills_workers:
            result.broken.append("a worker was replaced")
        if status != 0:
            result.broken.append(f"the service ended with status {status}")
        if "Traceback" in log:
            result.broken.append(f"the service logged\n{log}")
    return result


def strike(fault: Fault, scene: Scene, extent: Extent) -> Strike:
    """Strike once, in the midst of calm."""
    traffic, before = scene.traffic, scene.struck
    share = extent.requests // (2 * extent.strikes)
    calm = traffic.answered + share
    scene.wait(lambda: traffic.answered >= calm)
    began = monotonic()
    with fault.strikes(scene):
        struck, ended, refused = monotonic(), len(traffic.calls) + share, traffic.refused
        if fault.down:
            scene.wait(lambda: traffic.told(503, struck) and traffic.refused > refused)
        else:
            scene.wait(lambda: len(traffic.calls) >= ended)
        if fault.down and extent.bounds:
            scene.wait(lambda: traffic.probes[-1].time > struck + READY + DOWN)
        lifting = monotonic()
    lifted = monotonic()
    scene.wait(lambda: traffic.served(lifted))
    scene.wait(lambda: connections(fault, scene) == POOL_SIZE * WORKERS)
    recovered, calm = monotonic(), traffic.answered + share // 2
    scene.wait(lambda: traffic.answered >= calm)
    if extent.bounds:
        scene.wait(lambda: traffic.probes[-1].time > lifted + READY)
    return Strike(scene.struck - before, began, struck, lifting, lifted, recovered)


def connections(fault: Fault, scene: Scene) -> int:
    """Return how many connections of the service's pools are alive."""
    return scene.proxy.flowing if fault.proxied else len(sessions(scene.database))
