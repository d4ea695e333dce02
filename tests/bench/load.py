"""Sends POSTs on keep-alive connections, as fast as they are answered."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from time import perf_counter

import msgspec

from tests.bench.keys import Key

# Seconds for one answer; the service's own deadline is 5.
TIMEOUT = 15

WRK = shutil.which("wrk")
CLIENT = "wrk" if WRK else "the built-in client, which needs far more of the processor than wrk"

# The requests are made before the clock starts, so that wrk spends its time on sending them.
SCRIPT = """
local requests, sent = {}, 0
function init()
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines("BODIES") do
    requests[#requests + 1] = wrk.format(nil, nil, nil, body)
  end
end
function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"p999":%f,"refused":%d,"broken":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Load(msgspec.Struct):
    """The result of one round of requests; times are milliseconds."""

    requests: int  # that were answered, whatever the status
    seconds: float
    p50: float
    p99: float
    p999: float
    refused: int  # how many were answered with another status than 2xx
    broken: int  # connections that failed, and answers that did not come in TIMEOUT
    retried: int | None = None  # None where the client does not know


def post(port: int, keys: Iterable[Key], connections: int, seconds: int) -> Load:
    """POST the keys to /employees, from the first again when they are used up."""
    bodies = [
        msgspec.json.encode({"department_id": department_id, "name": name})
        for department_id, name in keys
    ]
    if WRK is None:
        return asyncio.run(post_bodies(port, bodies, connections, seconds))
    with tempfile.TemporaryDirectory(prefix="onerow-bench-") as folder:
        script, lines = Path(folder, "post.lua"), Path(folder, "bodies")
        lines.write_bytes(b"\n".join(bodies))
        script.write_text(SCRIPT.replace("BODIES", str(lines)))
        done = subprocess.run(
            [
                WRK,
                "--threads=1",
                f"--connections={connections}",
                f"--duration={seconds}s",
                f"--timeout={TIMEOUT}s",
                f"--script={script}",
                f"http://127.0.0.1:{port}/employees",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)


async def post_bodies(port: int, bodies: list[bytes], connections: int, seconds: int) -> Load:
    """POST the bodies to /employees, from the first again when they are used up."""
    following = cycle(bodies)
    times: list[float] = []
    refused = broken = 0
    started = perf_counter()
    deadline = started + seconds

    async def client() -> None:
        nonlocal refused, broken
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := perf_counter()) < deadline:
            body = next(following)
            writer.write(
                b"POST /employees HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length))
            times.append(perf_counter() - sent)
            refused += not head.startswith(b"http/1.1 2")
        writer.close()

    async def counted() -> None:
        nonlocal broken
        try:
            await asyncio.wait_for(client(), seconds + TIMEOUT)
        except (OSError, EOFError, TimeoutError):
            broken += 1

    await asyncio.gather(*(counted() for _ in range(connections)))
    return Load(
        len(times), perf_counter() - started, *percentiles(times), refused=refused, broken=broken
    )


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return the 50th, 99th and 99.9th percentile, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    p50, p99, p999 = (ordered[int(len(ordered) * part)] * 1000 for part in (0.5, 0.99, 0.999))
    return p50, p99, p999
