"""One HTML page that needs nothing beside it: no script, no style or picture from elsewhere.

Every function escapes what it is given, unless it is `Html`, which only these functions make.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

DENSITY = 2  # pixels of a picture for one of the page, on which its type is then about 12 px
COLUMN = 960  # pixels of the page for text; wider pictures stand out on both sides
WIDEST = 2000  # pixels of a picture: sharp on screens of two pixels a point
MARGIN = 12  # pixels of white left around a picture
QUALITY = 88  # of JPEG, for pictures that are much larger as PNG

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59616b; --line: #dde1e6;
  --paper: #ffffff; --tint: #f4f6f8; --accent: #0062a3; --mark: #8a4b00; --mark-tint: #fff3df; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #a3abb5;
  --line: #353b43; --paper: #15181c; --tint: #1e2227; --accent: #6cb8ef; --mark: #ffc370;
  --mark-tint: #33260f; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 1000px; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "Noto Sans", Arial, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; margin: .2rem 0 .6rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .8rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption, .eyebrow { color: var(--soft); font-size: .875rem; }
.eyebrow { letter-spacing: .04em; margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1.2rem 0 0; font-size: .875rem; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .15em; }
.mark { color: var(--mark); background: var(--mark-tint); border-left: 4px solid currentColor;
  padding: .6rem .9rem; margin: 1rem 0; max-width: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem;
  margin: 1.4rem 0; padding: 0; }
.tiles div { background: var(--tint); border-radius: 8px; padding: .75rem .9rem; }
.tiles dt { color: var(--soft); font-size: .8125rem; line-height: 1.35; }
.tiles dd { margin: .15rem 0 0; font-size: 1.45rem; font-weight: 600; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.table { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: 50%; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding-bottom: .3rem; }
th, td { text-align: left; padding: .32rem 1.1rem .32rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; font-size: .8125rem; white-space: nowrap; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: 1.1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border-radius: 6px; }
figure.wide { width: min(100vw - 2.5rem, 1240px); margin-left: 50%; transform: translateX(-50%); }
figure.wide img { margin: 0 auto; }
figure.wide figcaption { max-width: 960px; margin-inline: auto; }
figcaption { margin-top: .35rem; max-width: 46rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { background: var(--tint); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font: .8125rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  h3 { break-after: avoid; }
  figure, tr, .tiles { break-inside: avoid; }
  figure.wide { width: 100%; margin-left: 0; transform: none; }
  pre { white-space: pre-wrap; }
  details::details-content { content-visibility: visible; height: auto; }
  .mark, .tiles div, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def markup(thing: Any) -> Html:
    """Markup as it is, all else as text that is shown as it is written."""
    return thing if isinstance(thing, Html) else Html(escape(str(thing)))


def element(name: str, *content: Any, **attributes: str) -> Html:
    """`<name attribute="...">content</name>`; `class_` is the attribute `class`."""
    words = "".join(f' {k.rstrip("_")}="{escape(v)}"' for k, v in attributes.items())
    return Html(f"<{name}{words}>{joined(content)}</{name}>")


def joined(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(between.join(markup(part) for part in parts))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """A table whose rows begin with their name; what is a number, or looks it, stands right.

    It scrolls by itself where the screen is narrower.
    """
    rows = [list(row) for row in rows]
    right = [
        bool(rows) and all(_is_number(row[i]) for row in rows) and i > 0 for i in range(len(head))
    ]

    def cell(name: str, i: int, thing: Any, scope: str = "") -> Html:
        about = {"class_": "number"} if right[i] else {}
        return element(name, thing, **about, **({"scope": scope} if scope else {}))

    top = element("tr", *(cell("th", i, thing, "col") for i, thing in enumerate(head)))
    body = [
        element(
            "tr",
            *(cell("td" if i else "th", i, x, "" if i else "row") for i, x in enumerate(row)),
        )
        for row in rows
    ]
    title = element("caption", caption) if caption else ""
    inside = element("table", title, element("thead", top), element("tbody", *body))
    return element("div", inside, class_="table")


def tiles(numbers: Iterable[tuple[str, str]]) -> Html:
    """A few large numbers with their names."""
    each = (element("div", element("dt", k), element("dd", v)) for k, v in numbers)
    return element("dl", *each, class_="tiles")


def figure(image: np.ndarray, alt: str, caption: Any = "") -> Html:
    """A picture, uint8 `[h, w, 3]`, within the page; `alt` says what it shows."""
    image = trimmed(image)
    height, width = (side // DENSITY for side in image.shape[:2])
    data, kind = encoded(image)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    size = f'width="{width}" height="{height}"'
    picture = Html(f'<img src="{source}" {size} alt="{escape(alt)}">')
    below = element("figcaption", caption) if caption else ""
    return element("figure", picture, below, class_="wide" if width > COLUMN else "plain")


def trimmed(image: np.ndarray) -> np.ndarray:
    """The picture without its white margin; the page has one of its own."""
    inked = (image < 255).any(axis=-1)
    if not inked.any():
        return image
    y, x = np.nonzero(inked)
    rows = slice(max(int(y.min()) - MARGIN, 0), int(y.max()) + 1 + MARGIN)
    columns = slice(max(int(x.min()) - MARGIN, 0), int(x.max()) + 1 + MARGIN)
    return image[rows, columns]


def figure_or_reason(draw: Callable[[], np.ndarray], alt: str, caption: Any = "") -> Html:
    """The picture that `draw` makes, or a line that says why there is none."""
    try:
        return figure(draw(), alt, caption)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return element("p", f"No picture here ({alt}): {error}", class_="soft")


def encoded(image: np.ndarray) -> tuple[bytes, str]:
    """A picture as the bytes of a PNG, or of a JPEG where that is much smaller; and which."""
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    png, jpeg = BytesIO(), BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    if jpeg.tell() < 0.6 * png.tell():
        return jpeg.getvalue(), "jpeg"
    return png.getvalue(), "png"


def folded(title: str, *content: Any) -> Html:
    """What is shown when its title is clicked."""
    return element("details", element("summary", title), *content)


def document(title: str, header: Html, sections: Sequence[tuple[str, Html]], footer: Html) -> str:
    """The whole page: header, links to the sections, the sections under their titles.

    A policy in it forbids the browser to run or fetch anything, whatever the page says.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    links = (element("a", name, href=f"#{_anchor(name)}") for name, _ in sections)
    parts = (
        element("section", element("h2", name), content, id=_anchor(name))
        for name, content in sections
    )
    main = joined(parts, "\n")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>{header}{element("nav", *links)}</header>
<main>
{main}
</main>
<footer class="soft">{footer}</footer>
</body>
</html>
"""


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _is_number(thing: Any) -> bool:
    words = str(thing).replace("\N{MINUS SIGN}", "-").replace(",", "").strip()
    if words in ("", "-"):
        return True
    try:
        float(words.split()[0].rstrip("%"))
    except (ValueError, IndexError):
        return False
    return True
