"""`python -m db load`: gets or creates a row for each row of a file.

The command starts the service itself, and sends it the rows as the lines of one request. So each
row is checked, retried and refused as it would be for any client.
"""

import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import chain
from threading import Thread
from time import sleep
from typing import IO

import msgspec
from msgspec import UNSET, Raw, UnsetType

from db import own_service
from db.load.files import READERS, Row
from db.load.progress import Progress
from db.resources import RESOURCES, ROOT
from db.texts import say
from db.way_out.change import Refused

# Bytes after which a chunk of the request is sent, which are some hundred rows.
CHUNK = 2**13

# How many requests in a row may end without an answer to any row, and the seconds between two of
# them. A database that fails over is back by then.
TRIES = 30
PAUSE = 1.0


class Answer(msgspec.Struct, omit_defaults=True):
    """What the service answers to a row, or why it does not take it (RFC 9457)."""

    status: int
    detail: str = ""
    errors: list[dict[str, str]] | UnsetType = UNSET


class Refusal(Answer, kw_only=True):
    """A line of the file that keeps the refused rows."""

    line: int
    row: Raw | str


def load(url: str, given: Namespace) -> bool:
    """Load a file, and tell whether no row of it was refused. Raises Refused."""
    file, resource = given.file, RESOURCES[given.resource]
    if file.suffix not in READERS:
        raise Refused(f"{file} must end in {' or '.join(READERS)}")
    if not resource.takes_many:
        raise Refused(f"{resource.name} has no select_many.sql: `python -m db adopt` writes it")
    refused = given.refused or file.with_name(f"{file.name}.refused.ndjson")
    try:
        with file.open("rb") as source, service(url) as port, refused.open("xb") as rest:
            progress = Progress(os.fstat(source.fileno()).st_size)
            try:
                rows = READERS[file.suffix](source, resource)
                Loading(port, resource.name, rows, rest, progress).run()
            finally:
                progress.end()
                if not rest.tell():
                    refused.unlink()
    except FileExistsError:
        raise Refused(f"{refused} is there: move it away, or name another as --refused") from None
    except OSError as error:
        raise Refused(f"{error.filename or file}: {error.strerror}") from None
    if progress.counts["refused"]:
        say(f"What was refused, and why, is in {refused}.")
    return not progress.counts["refused"]


@contextmanager
def service(url: str) -> Iterator[int]:
    """Run the service on this database, and yield its port. Raises Refused if it does not start."""
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")],
            cwd=ROOT,
            env=own_service.environment(url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=own_service.end_with_parent,
        ) as process,
    ):

        def told() -> str:
            process.wait()
            log.seek(0)
            return log.read()

        try:
            assert process.stdout is not None
            yield own_service.port_in(process.stdout.readline(), told)
        finally:
            process.terminate()


class Loading:
    """Sends the rows in a thread, while their answers are read."""

    def __init__(
        self, port: int, resource: str, rows: Iterator[Row], refused: IO[bytes], progress: Progress
    ) -> None:
        """Take the rows, and the file for those that are refused."""
        self._port = port
        self._path = f"/{resource}"
        self._rows = rows
        self._refused = refused
        self._progress = progress
        self._due: deque[Row] = deque()  # the rows that were sent and have no answer
        self._fault: BaseException | None = None  # an error in reading the file
        self._unavailable = ""  # why the service did not answer the next row

    def run(self) -> None:
        """Send rows until each is answered. Raises Refused."""
        tries = 0
        while True:
            before = self._progress.counts.total()
            all_sent = self._request()
            if all_sent and not self._due:
                break
            tries = tries + 1 if self._progress.counts.total() == before else 0
            if tries == TRIES:
                raise Refused(
                    f"line {self._due[0].line} is not answered: {self._unavailable or 'no reason'}"
                    " What came before it is loaded. Load the file again: rows that exist are found"
                )
            sleep(PAUSE)
        if self._fault is not None:
            raise self._fault

    def _request(self) -> bool:
        """Send the rows that have no answer, and then further ones, until the answers end.

        Returns whether all were sent.
        """
        with closing(HTTPConnection("127.0.0.1", self._port)) as http:
            http.putrequest("POST", self._path)
            http.putheader("Content-Type", "application/x-ndjson")
            http.putheader("Transfer-Encoding", "chunked")
            http.endheaders()
            sent: list[bool] = []
            thread = Thread(target=self._send, args=(http, [*self._due], sent), daemon=True)
            thread.start()
            try:
                response = http.getresponse()
                for line in response:
                    answer = msgspec.json.decode(line, type=Answer)
                    if response.status not in (200, 503):
                        raise Refused(answer.detail)
                    self._take(answer)
            except (HTTPException, ConnectionError) as error:
                self._unavailable = f"the service ended the connection ({type(error).__name__})."
        thread.join()
        self._take_faults()
        return bool(sent)

    def _send(self, http: HTTPConnection, again: list[Row], sent: list[bool]) -> None:
        chunk = bytearray()
        try:
            for row in chain(again, self._new()):
                if not row.fault:
                    chunk += row.body + b"\n"
                if len(chunk) >= CHUNK:
                    http.send(_chunk(chunk))
                    chunk.clear()
            http.send((_chunk(chunk) if chunk else b"") + _chunk(b""))
            sent.append(True)
        except OSError:
            pass  # the service has ended the answers, and the reader knows why

    def _new(self) -> Iterator[Row]:
        """Yield rows of the file, each of which is due from then on."""
        try:
            for row in self._rows:
                self._due.append(row)
                yield row
        except (Refused, OSError) as error:
            self._fault = error  # what was sent before is answered first

    def _take(self, answer: Answer) -> None:
        """Count the row of an answer, unless the answer is the 503 that ends the others."""
        self._take_faults()
        if answer.status == 503:
            self._unavailable = answer.detail
            return
        row = self._due.popleft()
        if answer.status in (200, 201):
            self._progress.count(row, "created" if answer.status == 201 else "existing")
        else:
            self._refuse(row, answer)

    def _take_faults(self) -> None:
        """Refuse the rows that were not sent, up to the next one that was."""
        while self._due and self._due[0].fault:
            row = self._due.popleft()
            self._refuse(row, Answer(422, row.fault))

    def _refuse(self, row: Row, answer: Answer) -> None:
        try:
            as_read: Raw | str = Raw(msgspec.json.encode(msgspec.json.decode(row.body)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            as_read = row.body.decode(errors="replace")
        refusal = Refusal(answer.status, answer.detail, answer.errors, line=row.line, row=as_read)
        self._refused.write(msgspec.json.encode(refusal) + b"\n")
        self._progress.count(row, "refused")


def _chunk(part: bytes | bytearray) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), bytes(part))
