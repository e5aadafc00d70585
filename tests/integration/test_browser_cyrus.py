"""The demo with a real Cyrus in a real Chromium: a button is pressed, and the number moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.ports import free_ports
from demo.server import DemoServer, origins
from demo.sources import RealCyrus
from demo.waiting import wait_until
from tests.support.browser import chromium
from tests.support.cyrus import CyrusServer
from tests.support.pusher_process import PusherProcess

pytestmark = pytest.mark.real

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


def test_button_delivers_a_real_mail_and_the_page_hears_of_it() -> None:
    (port,) = free_ports(1)
    with (
        PusherProcess({"streams": {"allowed_origins": origins(port)}}) as pusher,
        CyrusServer(f"dlist:{pusher.stream_socket}") as cyrus,
        DemoServer(port, pusher, RealCyrus(cyrus)) as demo,
        chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(demo.url)
        page.wait_for_selector('[data-state="connected"]')
        for action, kind, event in (
            ("deliver", "mail", "MessageNew"),
            ("read", "mail", "MessageRead"),
            ("calendar", "calendar", "MessageNew"),
            ("contact", "contacts", "MessageNew"),
        ):
            before = cyrus.counters()[f"{kind}ModSeq"]
            page.click(f'[data-action="{action}"]')
            wait_until(lambda: cyrus.counters()[f"{kind}ModSeq"] > before, "the change", 10)  # noqa: B023
            truth = str(cyrus.counters()[f"{kind}ModSeq"])
            wait_until(lambda: page.text_content(f"#known-{kind}") == truth, f"{kind} {truth}")  # noqa: B023
            page.locator(f'.event[data-kind="{kind}"]', has_text=event).first.wait_for()
        wait_until(lambda: page.locator(".number.same").count() == 3, "the server's own numbers")
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=str(ARTIFACTS / "demo-cyrus.png"), full_page=True)
