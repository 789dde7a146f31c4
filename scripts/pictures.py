"""Records a session of the terminal UI, and draws it: pictures.py PROGRAM TRACE FOLDER

Needs tmux, and the packages `asciinema` and `pyte`. Each step of the session waits for what it leads to, so that it goes the
same way on a slow machine; how long pictures stand is cut to what a reader needs.
"""

import html
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

import pyte
from pyte.graphics import FG_BG_256

COLUMNS, LINES = 112, 30
PATIENCE = 60  # seconds that anything may take

# What is typed, as tmux names keys or as a text; what the screen has then; how long it stands, in seconds.
SESSION = [
    ("", "all of it", 3.0),
    ("Down", "", 0.3),
    ("Down", "", 1.0),
    ("2", "WAKEUPS", 1.8),
    ("text:>>", "", 1.2),
    ("/", "only rows with", 0.6),
    ("text:p99_wait > 8ms", "only rows with p99_wait > 8ms", 0.8),
    ("Enter", "only `p99_wait > 8ms`", 1.4),
    ("Down", "", 0.3),
    ("e", "HOW ITS TIME WAS SPENT", 3.0),
    ("BSpace", "only `p99_wait > 8ms`", 0.5),
    ("5", "the longest waits", 2.2),
    ("Down", "", 0.6),
    ("Enter", "a part of the time is looked at", 1.2),
    ("4", "idle, blank unknown", 1.8),
    ("b", "slept, blank", 1.6),
    ("n", "longest", 2.2),
    ("f", "was woken by", 3.0),
]

# Which pictures stand alone: the first of which this is true, as its lines say.
STILLS = {
    "top.svg": lambda lines: "all of it" in lines[1] and "q quit" in lines[-1],
    "top-timeline.svg": lambda lines: "was woken by" in "".join(lines),
}
LONGEST = 3.0  # seconds that a picture of the session stands

# Cells of the picture, in its units.
WIDTH, HEIGHT, SIZE, MARGIN = 8.4, 18, 14, 14
FONT = "ui-monospace,'JetBrains Mono','DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace"
GROUND, INK = "#14171c", "#d3d7de"
SIXTEEN = ["#1d2127", "#f2545b", "#5fc77a", "#e6b450", "#5aa5f0", "#c792ea", "#4fc1d9", "#d3d7de",
           "#7d8590", "#ff7b81", "#7ee2a0", "#ffd37a", "#82bfff", "#dcb3ff", "#7fe0f2", "#ffffff"]
NAMES = ["black", "red", "green", "brown", "blue", "magenta", "cyan", "white"]


class Terminal:
    """A terminal of tmux, on a server of its own."""

    def __init__(self, command):
        self.name = f"schedtrace-pictures-{os.getpid()}"
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, command, ";", "set", "status", "off")

    def tmux(self, *arguments):
        environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
        run = subprocess.run(["tmux", "-L", self.name, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
        return run.stdout

    def type(self, keys):
        if not keys.startswith("text:"):
            return self.tmux("send-keys", keys)
        for letter in keys.removeprefix("text:"):
            self.tmux("send-keys", "-l", letter)
            time.sleep(0.07)

    def wait(self, what):
        until = time.monotonic() + PATIENCE
        while what not in (screen := self.tmux("capture-pane", "-p")):
            if time.monotonic() > until:
                sys.exit(f"no `{what}` came:\n{screen}")
            time.sleep(0.05)


def record(program, trace, cast):
    """Goes through the session, and has asciinema write it down."""
    with tempfile.TemporaryDirectory() as home:
        # What somebody has chosen for themselves is not in the picture.
        chosen = f"env -u NO_COLOR HOME={home} XDG_CONFIG_HOME={home} XDG_STATE_HOME={home} COLORTERM=truecolor LANG=C.UTF-8"
        shown = f"{chosen} {shlex.quote(str(program))} top {shlex.quote(trace.name)}"
        recorder = [sys.executable, "-m", "asciinema", "rec", "--quiet", "--overwrite", "--command", shown, str(cast)]
        command = f"cd {shlex.quote(str(trace.parent))}; HOME={home} {shlex.join(recorder)}; echo recorded; exec sleep {PATIENCE}"
        terminal = Terminal(command)
        try:
            for keys, then, seconds in SESSION:
                if keys:
                    terminal.type(keys)
                terminal.wait(then)
                time.sleep(seconds)
            terminal.type("q")
            terminal.wait("recorded")
        finally:
            terminal.tmux("kill-server")


def tidy(cast, title):
    """Leaves out what is of the machine that recorded, and waits for a machine that was slow."""
    head, *events = [json.loads(line) for line in cast.read_text().splitlines()]
    head = {"version": 2, "width": head["width"], "height": head["height"], "title": title,
            "env": {"TERM": "xterm-256color"}, "idle_time_limit": LONGEST}
    now = before = 0.0
    tidied = []
    for at, kind, text in events:
        now, before = now + min(at - before, LONGEST), at
        tidied.append([round(now, 3), kind, text])
    lines = [json.dumps(line, ensure_ascii=False) for line in [head, *tidied]]
    cast.write_text("\n".join(lines) + "\n")
    return tidied


def colour(name, usual):
    """Of the terminal's palette, or its own."""
    if name == "default":
        return usual
    if name in FG_BG_256[:16]:
        return SIXTEEN[FG_BG_256.index(name)]
    plain = name.removeprefix("bright")
    if plain in NAMES:
        return SIXTEEN[NAMES.index(plain) + (8 if plain != name else 0)]
    return f"#{name}"


def cells(screen):
    """Each line as a tuple of cells: sign, colour, ground, whether it is bold."""

    def cell(char):
        ink, ground = colour(char.fg, INK), colour(char.bg, GROUND)
        if char.reverse:
            ink, ground = ground, ink
        return char.data or " ", ink, ground, char.bold

    return [tuple(cell(screen.buffer[y][x]) for x in range(screen.columns)) for y in range(screen.lines)]


def pictures(events):
    """What the terminal showed, and from when on: (second, lines as cells, lines as text). What came at once is one."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.Stream(screen)
    shown = []
    for at, (second, _, text) in enumerate(events):
        # The terminal of the shell comes back: the end.
        if "\x1b[?1049l" in text:
            break
        stream.feed(text)
        if at + 1 < len(events) and events[at + 1][0] - second < 0.03:
            continue
        now = (second, cells(screen), list(screen.display))
        if any(line.strip() for line in now[2]) and (not shown or shown[-1][1] != now[1]):
            shown.append(now)
    return shown


def box(x, y, width, height, fill, opacity=1.0):
    opaque = "" if opacity == 1.0 else f' fill-opacity="{opacity}"'
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{opaque}/>'


def drawn(sign, x, width, ink):
    """Blocks and rules as shapes: fonts leave gaps between them."""
    eighths = "▁▂▃▄▅▆▇█".find(sign) + 1
    if eighths:
        height = round(HEIGHT * eighths / 8, 2)
        return box(x, HEIGHT - height, width, height, ink)
    if sign in "░▒▓":
        return box(x, 0, width, HEIGHT, ink, {"░": 0.3, "▒": 0.5, "▓": 0.75}[sign])
    if sign == "─":
        return box(x, HEIGHT / 2 - 0.5, width, 1, ink)
    return None


def line_of(row):
    """A line as SVG, at the height 0."""
    parts = []
    at = 0
    for ground, run in groupby(row, key=lambda cell: cell[2]):
        length = len(list(run))
        if ground != GROUND:
            parts.append(box(at * WIDTH, 0, length * WIDTH, HEIGHT, ground))
        at += length

    def look(cell):
        sign, ink, _, bold = cell
        return (sign if drawn(sign, 0, 0, "") else "text" if sign != " " else " ", ink, bold)

    at, text = 0, []
    for (sign, ink, bold), run in groupby(row, key=look):
        signs = "".join(cell[0] for cell in run)
        x, width = round(at * WIDTH, 2), round(len(signs) * WIDTH, 2)
        if sign == "text":
            weight = ' font-weight="bold"' if bold else ""
            text.append(f'<text x="{x:g}" y="{SIZE - 0.5:g}" textLength="{width:g}" fill="{ink}"{weight}>{html.escape(signs)}</text>')
        elif sign != " ":
            parts.append(drawn(sign, x, width, ink))
        at += len(signs)
    return "".join(parts + text)


def svg(shown, title):
    """One picture, or several that follow each other without end."""
    width, height = COLUMNS * WIDTH, LINES * HEIGHT
    outer = width + 2 * MARGIN, height + 2 * MARGIN
    names, lines, frames = {}, [], []
    for at, (_, rows, _) in enumerate(shown):
        uses = []
        for y, row in enumerate(rows):
            if row not in names:
                names[row] = f"l{len(names)}"
                lines.append(f'<g id="{names[row]}">{line_of(row)}</g>')
            uses.append(f'<use href="#{names[row]}" y="{y * HEIGHT}"/>')
        frames.append(f'<g transform="translate({at * outer[0]:g} 0)">{"".join(uses)}</g>')
    style = f"text{{font:{SIZE}px {FONT};white-space:pre}}rect{{shape-rendering:crispEdges}}"
    if len(shown) > 1:
        begun, ended = shown[0][0], shown[-1][0] + LONGEST
        share = [(second - begun) / (ended - begun) * 100 for second, _, _ in shown]
        steps = "".join(f"{now:.3f}%{{transform:translateX({-at * outer[0]:g}px)}}" for at, now in enumerate(share))
        style += f"@keyframes s{{{steps}}}.s{{animation:s {ended - begun:.2f}s step-end infinite}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {outer[0]:g} {outer[1]:g}" width="{outer[0]:g}" '
        f'height="{outer[1]:g}" role="img"><title>{html.escape(title)}</title><style>{style}</style>'
        f'<defs>{"".join(lines)}</defs><rect width="100%" height="100%" rx="8" fill="{GROUND}"/>'
        f'<svg x="{MARGIN}" y="{MARGIN}" width="{width:g}" height="{height:g}"><g class="s">{"".join(frames)}</g></svg></svg>\n'
    )


def main():
    program, trace, folder = (Path(argument).resolve() for argument in sys.argv[1:4])
    cast, title = folder / "top.cast", f"schedtrace top {trace.name}"
    record(program, trace, cast)
    shown = pictures(tidy(cast, title))
    for name, is_it in STILLS.items():
        still = next((picture for picture in shown if is_it(picture[2])), None)
        if still is None:
            sys.exit(f"{name}: no picture of the session is it")
        (folder / name).write_text(svg([still], title))
    (folder / "top-session.svg").write_text(svg(shown, title))
    for name in ("top.cast", *STILLS, "top-session.svg"):
        print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes")
    print(f"{len(shown)} pictures, {shown[-1][0]:.0f} s")


main()
