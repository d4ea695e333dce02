"""How long merge takes beside requests: `python -m tests.bench.merge`.

Each of so many keys has two rows. While `python -m db merge --apply` takes the second ones away, so
many requests a second get or create employees, half of them with keys that have two rows.
"""

import argparse
import asyncio
import random
from collections import Counter
from time import perf_counter

from db.embedded import embedded_server
from db.schema import apply_schema
from db.signals import unwind_on_signals
from tests.bench.operations import body
from tests.support import legacy
from tests.support.service import Service, serving, sql, temporary_data_dir

DEPARTMENTS = 1000
CONNECTIONS = 16


async def client(service: Service, keys: int, a_second: int, statuses: Counter[bytes]) -> None:
    """Ask for keys at this pace, or slower where the answers are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    due = perf_counter()
    while True:
        due = max(due, perf_counter() - 1) + CONNECTIONS / a_second
        await asyncio.sleep(due - perf_counter())
        number = random.randrange(2 * keys)  # those from `keys` on are new
        sent = body((number % DEPARTMENTS + 1, f"Employee {number}"))
        writer.write(
            b"POST /employees HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(sent), sent)
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length))
        statuses[head[9:12]] += 1


def apply(database: str) -> tuple[int, str, str]:
    """Run the command; return its exit status, output and error output."""
    with legacy.start(database, "merge", "--apply") as process:
        output, errors = process.communicate()
    return process.returncode, output, errors


async def merged_beside(service: Service, keys: int, a_second: int) -> tuple[float, Counter[bytes]]:
    """Merge under traffic; return the seconds, and how many requests had which status."""
    statuses: Counter[bytes] = Counter()
    clients = [
        asyncio.create_task(client(service, keys, a_second, statuses))
        for _ in range(CONNECTIONS if a_second else 0)
    ]
    started = perf_counter()
    merge = await asyncio.to_thread(apply, service.database)
    seconds = perf_counter() - started
    for task in clients:
        task.cancel()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    statuses[b"broken"] = sum(not isinstance(end, asyncio.CancelledError) for end in ends)
    assert merge[0] == 0, merge
    print(merge[1], end="")
    return seconds, statuses


def main() -> None:
    """Measure, and print the seconds and what became of the requests."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.merge", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=1000, help="a second")
    options = parser.parse_args()
    unwind_on_signals(SystemExit(1))
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
        apply_schema(url)
        sql(
            url,
            "INSERT INTO departments (name) SELECT n::text FROM generate_series(1, %s) AS n",
            DEPARTMENTS,
        )
        sql(
            url,
            "INSERT INTO employees (department_id, name)"
            " SELECT n %% %s + 1, 'Employee ' || n"
            " FROM generate_series(1, 2) AS copies, generate_series(0, %s - 1) AS n",
            DEPARTMENTS,
            options.keys,
        )
        sql(url, "VACUUM ANALYZE")
        assert legacy.run(url, "guard", "on")[0] == 0
        with serving(DATABASE_URL=url, WORKERS="2") as service:
            seconds, statuses = asyncio.run(merged_beside(service, options.keys, options.requests))
    told = ", ".join(f"{number:,} x {status.decode()}" for status, number in statuses.items())
    print(f"{options.keys:,} keys in {seconds:.0f} s, {options.keys / seconds:,.0f} a second")
    print(f"requests: {statuses.total() / seconds:,.0f} a second, {told}")


if __name__ == "__main__":
    main()
