"""Debian's Chromium, through Playwright: no browser is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# No sandbox, which root cannot have and a container may not allow, and nothing that asks the
# network for anything but the pages.
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """A headless Chromium of our own, with these arguments besides, closed at the end."""
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS.split(), *more]
        )
        with browser:
            yield browser
