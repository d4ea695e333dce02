"""Takes the picture of the traffic in docs/inside.md: `python -m tests.tools.screenshot`.

It takes some five minutes, which is the time that the picture shows.
"""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from time import monotonic

from db.embedded import embedded_server
from db.schema import apply_schema
from tests.support.browser import chromium
from tests.support.legacy import fill
from tests.support.service import ROOT, Service, serving, temporary_data_dir
from web.traffic import WINDOW

FILE = ROOT / "web" / "inspection.png"
DEPARTMENTS = 50
CLIENTS = 8


def traffic(service: Service, stopped: Event) -> None:
    """Send requests of clients in step: mostly keys that exist, some new, some new for all."""
    draw = random.Random(1)
    started = monotonic()
    new = 0
    with ThreadPoolExecutor(CLIENTS) as clients:
        while not stopped.is_set():
            elapsed = monotonic() - started
            # The share and the pace swing at different lengths, so that the two curves differ.
            share_new = 0.15 + 0.1 * math.sin(elapsed / 25)
            pace = 25 + 15 * math.sin(elapsed / 40)  # turns a second
            draws = [draw.random() < share_new for _ in range(CLIENTS)]
            names = [
                f"new {(new := new + 1)}" if each else f"employee {new % 16}" for each in draws
            ]
            if draw.random() < 0.02:
                names = [f"new {(new := new + 1)}"] * CLIENTS
            post = partial(service.post, "/employees", department_id=draw.randint(1, DEPARTMENTS))
            list(clients.map(lambda name, post=post: post(name=name), names))
            stopped.wait(draw.expovariate(pace))


def main() -> None:
    print(f"{WINDOW} seconds of traffic, then {FILE}")
    stopped = Event()
    with (
        temporary_data_dir() as data_dir,
        embedded_server(data_dir) as url,
        ThreadPoolExecutor(1) as background,
    ):
        apply_schema(url)
        fill(url, employees=2000, departments=DEPARTMENTS)
        with serving(DATABASE_URL=url, WORKERS="2") as service, chromium() as browser:
            task = background.submit(traffic, service, stopped)
            try:
                stopped.wait(WINDOW)
                # The window is a pixel high, so that the picture ends where the page does.
                page = browser.new_page(viewport={"width": 900, "height": 1}, device_scale_factor=2)
                page.goto(f"{service.url}/inspect/traffic")
                page.screenshot(path=FILE, full_page=True)
            finally:
                stopped.set()
                task.result()


if __name__ == "__main__":
    main()
