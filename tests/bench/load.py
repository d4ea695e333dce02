"""Sends requests on keep-alive connections, as fast as they are answered."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec

# Seconds for one answer; the service's own deadline is 5.
TIMEOUT = 15

WRK = shutil.which("wrk")
CLIENT = "wrk" if WRK else "the built-in client, which needs far more of the processor than wrk"

# The requests are made before the clock starts, so that wrk spends its time on sending them.
SCRIPT = """
local requests, sent = {}, 0
function init()
  local json = { ["Content-Type"] = "application/json" }
  for line in io.lines("REQUESTS") do
    local method, path, body = line:match("^(%u+) (%S+) (.*)$")
    requests[#requests + 1] = wrk.format(method, path, body ~= "" and json or {}, body)
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


class Request(NamedTuple):
    """A request, whose body is JSON if it has one."""

    method: str
    path: str
    body: bytes = b""


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


def send(port: int, requests: Iterable[Request], connections: int, seconds: int) -> Load:
    """Send the requests, from the first again when they are used up."""
    if WRK is None:
        return asyncio.run(send_in_python(port, requests, connections, seconds))
    with tempfile.TemporaryDirectory(prefix="onerow-bench-") as folder:
        script, lines = Path(folder, "send.lua"), Path(folder, "requests")
        with lines.open("wb") as file:
            for method, path, body in requests:
                file.write(f"{method} {path} ".encode() + body + b"\n")
        script.write_text(SCRIPT.replace("REQUESTS", str(lines)))
        done = subprocess.run(
            [
                WRK,
                "--threads=1",
                f"--connections={connections}",
                f"--duration={seconds}s",
                f"--timeout={TIMEOUT}s",
                f"--script={script}",
                f"http://127.0.0.1:{port}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)


async def send_in_python(
    port: int, requests: Iterable[Request], connections: int, seconds: int
) -> Load:
    """Send the requests, from the first again when they are used up."""
    following = cycle(list(requests))
    times: list[float] = []
    refused = broken = 0
    started = perf_counter()
    deadline = started + seconds

    async def client() -> None:
        nonlocal refused, broken
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := perf_counter()) < deadline:
            method, path, body = next(following)
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
            if body:
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"\r\n" + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, _, rest = answer.partition(b"content-length:")
            await reader.readexactly(int(rest.split(b"\r\n", 1)[0] or 0))
            times.append(perf_counter() - sent)
            refused += not answer.startswith(b"http/1.1 2")
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


async def stream(port: int, bodies: Sequence[bytes]) -> Load:
    """Send bodies as the lines of one request, and read the answer meanwhile."""
    whole = b"\n".join(bodies)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    started = perf_counter()
    writer.write(
        b"POST /employees HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Content-Length: %d\r\n\r\n" % len(whole)
    )

    async def send() -> None:
        for at in range(0, len(whole), 2**16):
            writer.write(whole[at : at + 2**16])
            await writer.drain()

    sending = asyncio.create_task(send())
    answered = 0
    while (line := await reader.readline()) not in (b"", b"0\r\n"):
        answered += line.startswith((b'{"status":200', b'{"status":201'))
    seconds = perf_counter() - started
    await sending
    writer.close()
    return Load(len(bodies), seconds, 0, 0, 0, refused=len(bodies) - answered, broken=0)


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return the 50th, 99th and 99.9th percentile, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    p50, p99, p999 = (ordered[int(len(ordered) * part)] * 1000 for part in (0.5, 0.99, 0.999))
    return p50, p99, p999
