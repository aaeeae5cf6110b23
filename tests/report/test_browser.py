"""The page in a real browser: its policy holds, nothing is fetched, it fits a phone, and what is read has contrast.

The page itself may not run scripts, so a second page on the same local server holds it in a frame and measures it.
"""

import functools
import html
import http.server
import json
import re
import shutil
import struct
import subprocess
import threading

import pytest

from cupel.report.html import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium found (chromium, chromium-browser, google-chrome): the page was not looked at"),
]

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--hide-scrollbars",
    "--enable-logging=stderr", "--v=0",
]  # fmt: skip
DARK, LIGHT = "--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1"
REFUSED = re.compile(r"Refused|Content Security Policy|violates", re.IGNORECASE)

MEASURE = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><body style="margin:0">
<iframe id="f" src="PAGE" style="border:0;width:WIDTHpx;height:900px;display:block"></iframe><pre id="out"></pre><script>
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
const light = c => {
  const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const frame = document.getElementById("f");
frame.onload = () => {
  const doc = frame.contentDocument, win = frame.contentWindow, found = { low: [], wide: [], texts: 0 };
  doc.querySelectorAll("details").forEach(d => { d.open = OPEN; });
  const ground = e => {
    for (; e; e = e.parentElement) { const c = parse(win.getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; }
    return [255, 255, 255, 1];
  };
  const walk = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.getClientRects().length || ["title", "desc", "STYLE"].includes(e.tagName)) continue;
    const s = win.getComputedStyle(e);
    const drawn = e instanceof win.SVGElement, fore = parse(drawn ? s.fill : s.color), back = ground(drawn ? e.ownerSVGElement : e);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    found.texts++;
    if (ratio < 4.5) found.low.push([node.data.trim().slice(0, 40), s.color, ratio]);
  }
  const width = doc.documentElement.clientWidth;
  for (const e of doc.body.querySelectorAll("*")) {
    const box = e.getBoundingClientRect();
    if (box.right > width + 1 && !e.closest(".scroll, .away"))
      found.wide.push([e.tagName, e.className.baseVal ?? e.className, box.right]);
  }
  found.scroll = doc.documentElement.scrollWidth; found.width = width; found.height = doc.documentElement.scrollHeight;
  found.ground = win.getComputedStyle(doc.body).backgroundColor;
  found.hidden = [...doc.querySelectorAll("details.vote strong")].filter(e => e.checkVisibility()).length;
  const heads = [...doc.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex !== 0);
  found.unreachable = heads.length;
  document.getElementById("out").textContent = JSON.stringify(found);
};
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for."""

    def __init__(self, *args, asked, **kwargs):
        self.asked = asked
        super().__init__(*args, **kwargs)

    def log_message(self, *args):
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def site(tmp_path_factory, make_report):
    """A local server with the sample page; what it was asked for."""
    folder = tmp_path_factory.mktemp("site")
    page = render(make_report())
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "tampered.html").write_text(page.replace("<style>", "<style>p{}"), encoding="utf-8")
    (folder / "attribute.html").write_text(page.replace("<main", '<main style="color:red"'), encoding="utf-8")
    wrong = '<!DOCTYPE html><p class="broad" style="width:900px">Broad</p><p style="color:#888">Faint</p>'
    (folder / "wrong.html").write_text(wrong, encoding="utf-8")
    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder), asked=asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def chromium(tmp_path):
    """Runs the browser once with a new profile; gives its output and what it logged."""
    runs = iter(range(100))

    def run(*arguments):
        profile = f"--user-data-dir={tmp_path / f'profile{next(runs)}'}"
        done = subprocess.run(
            [BROWSER, *FLAGS, profile, *arguments], capture_output=True, text=True, errors="replace", timeout=120, check=True
        )
        return done.stdout, done.stderr

    return run


def measured(site, chromium, page, width, *flags, unfold=False):
    folder, address, _ = site
    frame = MEASURE.replace("PAGE", page).replace("WIDTH", str(width)).replace("OPEN", json.dumps(unfold))
    (folder / "measure.html").write_text(frame, encoding="utf-8")
    shown, logged = chromium(
        f"--window-size={max(width, 600)},900", *flags, "--virtual-time-budget=5000", "--dump-dom", f"{address}/measure.html"
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None, f"the frame was not measured: {logged[-2000:]}"
    assert found.group(1), f"the frame was not measured: {logged[-2000:]}"
    return json.loads(html.unescape(found.group(1)))


def test_policy_holds_and_nothing_is_fetched(site, chromium):
    _, address, asked = site
    asked.clear()
    shown, logged = chromium("--dump-dom", f"{address}/report.html")
    assert "Train on curated rows" in shown
    assert not REFUSED.search(logged), logged
    assert {path for path in map(str, asked) if "report.html" not in path} <= {"/favicon.ico"} | {path for path in asked if "%s" in path}


@pytest.mark.parametrize("page", ["tampered.html", "attribute.html"])
def test_the_policy_would_have_complained(site, chromium, page):
    _, address, _ = site
    _, logged = chromium("--dump-dom", f"{address}/{page}")
    assert REFUSED.search(logged)


@pytest.mark.parametrize(
    ("width", "theme", "ground", "unfold"),
    [
        (360, LIGHT, "rgb(251, 250, 247)", False),
        (360, DARK, "rgb(21, 23, 26)", True),
        (1280, LIGHT, "rgb(251, 250, 247)", True),
    ],
)
def test_fits_hides_votes_and_has_contrast(site, chromium, width, theme, ground, unfold):
    found = measured(site, chromium, "report.html", width, theme, unfold=unfold)
    assert found["ground"] == ground
    assert found["texts"] > (900 if unfold else 300)
    assert found["low"] == []
    assert found["width"] == width
    assert found["wide"] == []
    assert found["scroll"] <= width
    assert found["unreachable"] == 0
    assert found["hidden"] == (50 if unfold else 0)


def test_the_measure_would_have_complained(site, chromium):
    found = measured(site, chromium, "wrong.html", 360, LIGHT)
    assert [text for text, *_ in found["low"]] == ["Faint"]
    assert [(tag, name) for tag, name, _ in found["wide"]] == [("P", "broad")]
    assert found["scroll"] > 360


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("width", [360, 1280])
def test_screenshot(site, chromium, tmp_path, theme, width):
    folder, address, _ = site
    (folder / "shot.html").write_text(
        f'<!DOCTYPE html><body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;height:2400px"></iframe>',
        encoding="utf-8",
    )
    picture = tmp_path / "page.png"
    chromium(theme, f"--window-size={max(width, 600)},2400", f"--screenshot={picture}", f"{address}/shot.html")
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (max(width, 600), 2400)
    assert len(data) > 60_000  # an empty page of this size is under 20 kB


def test_prints(site, chromium, tmp_path):
    _, address, _ = site
    paper = tmp_path / "page.pdf"
    _, logged = chromium(f"--print-to-pdf={paper}", "--no-pdf-header-footer", f"{address}/report.html")
    data = paper.read_bytes()
    assert data.startswith(b"%PDF-")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 40
    assert not REFUSED.search(logged)
