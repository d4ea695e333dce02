"""Starts nginx before the service as usual, with HTTP/1.1 and connections that are kept."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.haproxy import free_port
from tests.support.service import LIMIT, until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream onerow {{
        server 127.0.0.1:{upstream};
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name onerow;
        location / {{
            proxy_pass http://onerow;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@contextmanager
def proxying(upstream: int) -> Iterator[int]:
    """Start nginx before this port, on a free one, which is yielded; end it at the end."""
    assert NGINX is not None
    with TemporaryDirectory(prefix="onerow-nginx-") as name:
        port = free_port()
        file = Path(name) / "nginx.conf"
        file.write_text(CONFIGURATION.format(folder=name, port=port, upstream=upstream))
        with subprocess.Popen([NGINX, "-q", "-e", Path(name) / "log", "-c", file]) as process:
            try:
                until(lambda: process.poll() is not None or is_listening(port))
                assert process.poll() is None, (Path(name) / "log").read_text()
                yield port
            finally:
                process.terminate()
                process.wait(LIMIT)


def is_listening(port: int) -> bool:
    """Return whether someone accepts connections at this port."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
