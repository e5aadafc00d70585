"""Every mail in a real Chromium: its language, its direction, its width, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from notifyd.compose.calendar_alarm import compose_calendar_alarm
from shared.events import Attendee
from tests.support.alarm_mails import (
    ALICE,
    LOCALES,
    NOW,
    TIMED,
    all_names,
    html,
    mail,
    reader,
    voice,
)
from tests.support.browser import chromium

pytestmark = pytest.mark.real

SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "mails"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = {"phone": 360, "desktop": 800}

_LAYOUT = """() => ({
  lang: document.documentElement.lang,
  dir: document.documentElement.dir,
  direction: getComputedStyle(document.querySelector("h1").parentElement).direction,
  title: document.title,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  cut: [...document.querySelectorAll("td, div, h1, p, a")].filter((e) =>
    e.getBoundingClientRect().width && !e.closest("[style*='display:none']") &&
    e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline"
  ).map((e) => e.textContent.trim().slice(0, 40)),
})"""

# WCAG contrast of every text with what is behind it; of gradients and pictures there are none.
_CONTRASTS = """() => {
  const parse = (css) => css.match(/[0-9.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !e.getClientRects().length || getComputedStyle(e).fontSize === "0px") continue;
    const inks = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const [a, b] = inks.sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push([text, Math.round(ratio * 10) / 10]);
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page; that a mail asked for anything fails the test."""
    page = browser.new_page(device_scale_factor=1.5)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert asked == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("locale", LOCALES)
def test_every_mail_fits_its_screen_and_can_be_read(
    page: Page, locale: str, scheme: Literal["light", "dark"]
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.emulate_media(color_scheme=scheme)
    direction = "rtl" if locale == "ar" else "ltr"
    for name in (name for name, language in all_names() if language == locale):
        page.set_content(html(mail(name, locale)))
        for screen, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 400})
            page.screenshot(
                path=SCREENSHOTS / f"{locale}-{name}-{screen}-{scheme}.png", full_page=True
            )
            layout = page.evaluate(_LAYOUT)
            assert (layout["lang"], layout["dir"]) == (locale, direction)
            assert layout["direction"] == direction
            assert layout["title"]
            assert (layout["overflow"], layout["cut"]) == (0, []), (name, width)
            assert page.evaluate(_CONTRASTS) == [], (name, width)


def test_letters_of_every_language_are_drawn(page: Page) -> None:
    """No boxes instead of letters, else the pictures show nothing; needs fonts for ja and ar."""
    page.set_content(html(mail("timed", "ja")))
    session = page.context.new_cdp_session(page)
    for domain in ("DOM", "CSS"):
        session.send(f"{domain}.enable")
    root = session.send("DOM.getDocument", {"depth": -1})["root"]["nodeId"]
    nodes = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": "bdi"})["nodeIds"]
    used = {
        font["familyName"]
        for node in nodes
        for font in session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
    }
    assert len(used) >= 3, f"Latin, Arabic and Japanese need fonts of their own; used: {used}"


def test_hostile_text_becomes_neither_script_nor_picture_nor_overflow(page: Page) -> None:
    hostile = (
        "</title></style><script>document.title='owned'</script>"
        "<img src=http://127.0.0.1:9/x onerror=document.title='owned'>" + "W" * 300
    )
    alarm = msgspec.structs.replace(
        TIMED,
        summary=hostile,
        location=hostile,
        description=f"https://x.example/{hostile}\n{hostile}",
        calendar_name=hostile,
        calendar_color="red;background:url(http://127.0.0.1:9/y)",
        organizer=f"mailto:{hostile}",
        timezone=hostile,
        attendees=(Attendee(f"mailto:{hostile}", hostile, hostile),),
    )
    made = compose_calendar_alarm(alarm, ALICE, reader("en"), "k", voice=voice(), now=NOW)
    page.set_viewport_size({"width": 360, "height": 400})
    page.set_content(html(made))
    assert page.title() != "owned"
    assert page.evaluate("document.querySelectorAll('script, img, link, iframe').length") == 0
    assert page.evaluate(_LAYOUT)["overflow"] == 0
