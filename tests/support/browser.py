"""Debian's Chromium, through Playwright: no browser is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# There is no sandbox, for root cannot have one and a container may not allow it. Nothing asks the
# network for anything but the pages.
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """Start a headless Chromium with these arguments besides; close it at the end."""
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS.split(), *more]
        )
        with browser:
            yield browser
