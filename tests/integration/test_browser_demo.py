"""The demo page in a real Chromium, direct and through a real nginx, while pusher is killed."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from demo.eventsource import EventStream
from demo.ports import free_ports
from demo.postbox import Postbox
from demo.server import DemoServer, origins
from demo.sources import Recorded, careless_sender
from demo.waiting import wait_until
from tests.support.browser import chromium
from tests.support.cyrus import ALICE
from tests.support.follower import NAMES
from tests.support.nginx import Nginx
from tests.support.notifyd_process import NotifydProcess, notifyd_settings
from tests.support.pusher_process import PusherProcess
from tests.support.streams import open_stream

pytestmark = pytest.mark.real

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
KINDS = ("mail", "calendar", "contacts")

# Every value a number on the page ever has, in order.
_WATCH = """() => {
  window.seen = {mail: [], calendar: [], contacts: []};
  for (const kind of Object.keys(window.seen)) {
    const node = document.getElementById(`known-${kind}`);
    new MutationObserver(() => window.seen[kind].push(Number(node.textContent)))
      .observe(node, {childList: true, characterData: true, subtree: true});
  }
}"""

# An EventSource as anybody writes it: no second attempt of its own if the browser gives up.
_PLAIN = """(url) => {
  window.plain = {source: new EventSource(url), last: null, resyncs: 0, opened: 0};
  window.plain.source.onopen = () => { window.plain.opened++; };
  window.plain.source.addEventListener("push", (e) => { window.plain.last = JSON.parse(e.data); });
  window.plain.source.addEventListener("resync", () => { window.plain.resyncs++; });
}"""


class Place:
    """A pusher, recorded events, and the page both direct and by way of nginx."""

    def __init__(
        self, pusher: PusherProcess, nginx: Nginx, ports: list[int], postbox: Postbox
    ) -> None:
        self.pusher = pusher
        self.nginx = nginx
        self.source = Recorded(careless_sender(pusher.stream_socket))
        self.direct = DemoServer(ports[0], pusher, self.source, postbox=postbox)
        proxied = f"{nginx.url}/events"
        self.proxied = DemoServer(ports[1], pusher, self.source, events_url=proxied)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def place() -> Iterator[Place]:
    ports = free_ports(2)
    allowed = [origin for port in ports for origin in origins(port)]
    streams = {"allowed_origins": allowed, "retry_seconds": 0.5}
    with Postbox() as postbox:
        settings: dict[str, dict[str, object]] = {
            **notifyd_settings(),
            "streams": streams,
            "smtp": {"port": postbox.port},
        }
        with PusherProcess(settings) as pusher, Nginx(pusher.streams_port) as nginx:
            place = Place(pusher, nginx, ports, postbox)
            with place.direct, place.proxied:
                yield place


@pytest.fixture
def notifyd(place: Place) -> Iterator[None]:
    with NotifydProcess.beside(place.pusher):
        yield


@pytest.fixture(autouse=True)
def no_script_errors() -> Iterator[None]:
    _script_errors.clear()
    yield
    assert _script_errors == []


def opened(browser: Browser, url: str, **context: object) -> Page:
    """A page in a context of its own that has opened its stream."""
    page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
    page.on("pageerror", lambda error: _script_errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector('[data-state="connected"]')
    return page


_script_errors: list[str] = []


def shown(page: Page) -> dict[str, str | None]:
    return {kind: page.text_content(f"#known-{kind}") for kind in KINDS}


def wait_for_numbers(page: Page, numbers: dict[str, int]) -> None:
    """Return when the page shows exactly these."""
    wanted = {kind: str(number) for kind, number in numbers.items()}
    wait_until(lambda: shown(page) == wanted, f"the page to show {wanted}", 15)


def acted(page: Page, place: Place, act: Callable[[], None]) -> None:
    """Press a button, in whatever way `act` does, and return when the page shows what it did."""
    before = place.source.numbers()
    act()
    wait_until(lambda: place.source.numbers() != before, "the server to do it")
    wait_for_numbers(page, place.source.numbers())
    page.wait_for_selector("button[aria-disabled]", state="detached")  # it may be pressed again


def test_pages_show_the_servers_numbers_after_pusher_was_killed_under_events(
    browser: Browser, place: Place
) -> None:
    pages = [opened(browser, server.url) for server in (place.direct, place.proxied)]
    for page in pages:
        page.evaluate(_WATCH)
    pages[1].evaluate(_PLAIN, f"{place.nginx.url}/events?token={place.pusher.token(ALICE)}")
    wait_until(lambda: pages[1].evaluate("window.plain.opened") == 1, "the plain stream")

    for turn in range(1, 4):
        for action in ("deliver", "calendar", "contact", "read"):
            place.source.do(action)
        place.pusher.kill()
        for action in ("deliver", "calendar", "contact"):  # nobody hears of these
            place.source.do(action)
        place.pusher.start()
        wait_for_numbers(pages[0], place.source.numbers())
        wait_for_numbers(pages[1], place.source.numbers())
        # By itself, and told that events were lost.
        told = f"window.plain.opened > {turn} && window.plain.resyncs >= {turn}"
        wait_until(lambda: pages[1].evaluate(told), "the plain stream to come back", 15)  # noqa: B023
    place.source.do("deliver")

    numbers = place.source.numbers()
    for page in pages:
        wait_for_numbers(page, numbers)
        seen: dict[str, list[int]] = page.evaluate("window.seen")
        assert all(values == sorted(values) for values in seen.values()), f"a number fell: {seen}"
        wait_until(lambda: page.locator(".number.same").count() == 3, "the server's own numbers")  # noqa: B023
    mail = numbers["mail"]
    wait_until(
        lambda: pages[1].evaluate("window.plain.last?.mailModSeq") == mail, "the plain stream", 15
    )
    for page in pages:
        page.context.close()


def test_buttons_work_by_keyboard_and_the_list_says_what_became_of_each_event(
    browser: Browser, place: Place
) -> None:
    page = opened(browser, place.direct.url)
    place.source.do("contact")
    page.wait_for_selector(".event")

    page.focus('[data-action="deliver"]')
    acted(page, place, lambda: page.keyboard.press("Enter"))
    row = page.locator(".event", has_text="MessageNew").first
    row.wait_for()
    page.locator(".event.told", has_text="MailboxModseq").first.wait_for()
    assert "INBOX" in (row.text_content() or "")
    assert "told to 1 stream" in (page.text_content("#events") or "")
    assert (page.text_content("#block") or "").startswith("event: push\nid: ")

    page.keyboard.press("Tab")
    acted(page, place, lambda: page.keyboard.press("Space"))  # mark it read
    page.locator(".event", has_text="MessageRead").first.wait_for()
    page.keyboard.press("Enter")  # there is none left
    page.get_by_text("There is no unread mail").wait_for()
    page.context.close()


def test_second_page_is_told_as_well(browser: Browser, place: Place) -> None:
    first, second = (opened(browser, place.direct.url) for _ in range(2))
    acted(first, place, lambda: first.click('[data-action="calendar"]'))
    wait_for_numbers(second, place.source.numbers())
    first.locator(".event", has_text="told to 2 streams").first.wait_for()
    first.context.close()
    second.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("device", "width", "height"), [("desktop", 1200, 900), ("phone", 390, 844)]
)
def test_page_fits_phones_and_desktops_in_light_and_dark(
    browser: Browser,
    place: Place,
    notifyd: None,
    device: str,
    width: int,
    height: int,
    scheme: str,
) -> None:
    scale = 1 if device == "desktop" else 2
    page = opened(
        browser,
        place.direct.url,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=scale,
        reduced_motion="reduce",
    )
    for action in ("deliver", "calendar", "contact", "read"):
        button = page.locator(f'[data-action="{action}"]')
        acted(page, place, button.click)
    wait_until(lambda: page.locator(".event").count() == 8, "the eight events in the list")
    wait_until(lambda: page.locator(".number.same").count() == 3, "the server's own numbers")
    for action, count in (("notify", 1), ("alarm", 3)):
        page.locator(f'[data-action="{action}"]').click()
        wait_until(lambda: page.locator(".mail").count() == count, f"{count} mails")  # noqa: B023
    frame = page.frame_locator("#mail-html")
    wait_until(lambda: "Lunch with Carol" in frame.locator("body").inner_text(), "the mail")
    page.mouse.move(0, 0)
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / f"demo-{device}-{scheme}.png"), full_page=True)
    for narrow in (width, 320):
        page.set_viewport_size({"width": narrow, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= narrow
    assert page.evaluate(_LEAST_CONTRAST) >= 4.5
    page.context.close()


# WCAG contrast of every visible text with what is behind it; the smallest.
_LEAST_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (color) => {
    const [r, g, b] = [...color].slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgb("white");
  };
  let least = 21;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    const a = light(rgb(getComputedStyle(node).color)), b = light(behind(node));
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}"""


def test_demo_answers_only_pages_of_this_machine(place: Place) -> None:
    port = place.direct.port
    for headers, expected in (
        ({}, 200),
        ({"Host": f"evil.example:{port}"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ):
        for method, path in (("GET", "/setup"), ("POST", "/do/deliver")):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request(method, path, headers=headers)
                assert connection.getresponse().status == expected
            finally:
                connection.close()


def test_nginx_passes_blocks_on_at_once_and_unchanged(place: Place) -> None:
    with (
        open_stream(place.pusher, ALICE) as direct,
        EventStream(
            f"{place.nginx.url}/events",
            token=place.pusher.token(ALICE),
            headers={"Accept-Encoding": "gzip"},
        ) as proxied,
    ):
        assert proxied.status == 200
        assert "content-encoding" not in proxied.headers
        assert proxied.headers["content-type"] == "text/event-stream"
        for stream in (direct, proxied):
            stream.next_block()
        for _ in range(20):
            place.source.do("deliver")
            mail = place.source.numbers()["mail"]
            for stream in (direct, proxied):
                block = stream.next_block(within=2)
                assert block.json[NAMES[0]] == mail
        assert [b.raw for b in direct.blocks[1:]] == [b.raw for b in proxied.blocks[1:]]


def test_nginx_passes_on_jmap_streams_and_refusals_and_logs_no_token(place: Place) -> None:
    token = place.pusher.token(ALICE)
    url = f"{place.nginx.url}/jmap/eventsource?types=*&closeafter=no&ping=30&token={token}"
    with EventStream(url) as stream:
        assert stream.status == 200
        stream.next_block()
        place.source.do("deliver")
        stream.wait_for(lambda block: block.event == "state")
    with EventStream(f"{place.nginx.url}/events?token=wrong") as refused:
        assert refused.status == 401
    with EventStream(f"{place.nginx.url}/") as elsewhere:
        assert elsewhere.status == 404
    # nginx logs a request a moment after it is answered; the last one comes last.
    wait_until(lambda: "GET / " in place.nginx.access_log, "the last request in the log")
    assert token not in place.nginx.access_log + place.nginx.log


def test_page_of_the_same_origin_as_the_proxy_needs_no_permission(place: Place) -> None:
    with EventStream(
        f"{place.nginx.url}/events",
        token=place.pusher.token(ALICE),
        headers={"Origin": place.nginx.url},
    ) as same:
        assert same.status == 200
    with EventStream(
        f"{place.nginx.url}/events",
        token=place.pusher.token(ALICE),
        headers={"Origin": "https://evil.example"},
    ) as foreign:
        assert foreign.status == 403
