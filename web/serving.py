"""Processes, signals and the listening socket."""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable

import uvicorn
from uvicorn.supervisors import Multiprocess


def serve(
    app: str, *, host: str, port: int, workers: int, grace: int, listening: Callable[[str], None]
) -> None:
    """Serve `app`, an import string, until SIGINT, SIGTERM or SIGHUP; tell `listening` the URL.

    `grace` is the seconds that requests in flight then have. SystemExit if the port is taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        workers=workers,
        ws="none",
        timeout_graceful_shutdown=grace,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    sock = config.bind_socket()
    sock.listen(config.backlog)
    listening(f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}")
    if workers == 1:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        uvicorn.Server(config).run([sock])
    else:
        supervisor = Multiprocess(config, [sock])
        # The terminal was closed. uvicorn would restart the workers, and run on unseen.
        signal.signal(signal.SIGHUP, lambda *_: supervisor.signal_queue.append(signal.SIGTERM))
        supervisor.run()


def end_with_parent() -> None:
    """Stop this worker when the process that started it is gone, even by kill -9.

    Else it would keep the port, and the next start could not have it.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(parent.sentinel, stop)
