"""The documents do what they say: their code runs, and their commands print what is printed there.

Blocks of one document share a folder and, in Python, their names; they run in the order written.

- ```python      is run
- ```console     each `$ bptt ...` is run; what follows is its whole output, where a line `...`
                 stands for any number of lines and 1.2e-16 for any rounding error
- ```cell NAME   is a cell's text, saved as NAME if there is one
- ```sh, ```text, ```math are only read

`python tests/docs/test_docs.py` writes into the documents what their commands print, for reading
in `git diff`. Outputs with a line `...` are left as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bptt.language.initial import DRAWS, MATRICES
from bptt.language.parse import WORDS
from bptt.language.terms import FUNCTIONS

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "console", "cell", "sh", "text", "math"}
PROMPT = "$ "
ANY_LINES = "..."
# Its digits are another machine's, its size is not.
ROUNDING = re.compile(r"\b\d\.\de-1[4-7]\b")
NOISE = "1.2e-16"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what else its fence says, the line it starts on, its text."""

    language: str
    name: str
    line: int
    text: str


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    found: list[Block] = []
    fence: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(document.splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif fence is None:
            fence, lines = (number, line.removeprefix("```")), []
        else:
            language, _, name = fence[1].partition(" ")
            found.append(Block(language, name, fence[0] + 1, "".join(f"{x}\n" for x in lines)))
            fence = None
    assert fence is None, f"the block that starts in line {fence and fence[0]} has no end"
    return found


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that is claimed for it."""
    first, *rest = re.split(rf"^{re.escape(PROMPT)}", block.text, flags=re.MULTILINE)
    assert not first, f"line {block.line}: a console block starts with `{PROMPT}`"
    for part in rest:
        command, _, output = part.partition("\n")
        yield command, output


def agrees(claimed: str, printed: str) -> bool:
    """Whether an output is the claimed one: the same lines, a line `...` being any number."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == ANY_LINES else re.escape(f"{line}\n")
        for line in ROUNDING.sub(NOISE, claimed).splitlines()
    )
    return re.fullmatch(pattern, ROUNDING.sub(NOISE, printed)) is not None


def save(block: Block, folder: Path) -> None:
    """A cell's text as the file that its fence names."""
    if block.language == "cell" and block.name:
        (folder / block.name).write_text(block.text, encoding="utf-8")


def shell(command: str, folder: Path) -> str:
    """What a command prints, as in a terminal of 100 columns without colours."""
    environment = os.environ | {
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_document_does_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(path.read_text(encoding="utf-8")):
        assert block.language in LANGUAGES, f"{path}:{block.line}: ```{block.language}"
        save(block, tmp_path)
        if block.language == "python":
            # The empty lines make a traceback name the document's own line.
            exec(compile("\n" * (block.line - 1) + block.text, path, "exec"), names)
        elif block.language == "console":
            for command, claimed in commands(block):
                assert command.startswith("bptt "), f"{path}:{block.line}: $ {command}"
                printed = shell(command, tmp_path)
                evidence = f"{path}:{block.line}: `{command}` prints\n{printed}and not\n{claimed}"
                assert agrees(claimed, printed), evidence


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        well = "://" in target or (path.parent / target).exists()
        assert well, f"{path} links to {target}, which is not there"


def test_the_readme_fits_two_screens() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 120


def test_the_language_is_all_there() -> None:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    said = set(re.findall(r"[^\W\d]\w*", " ".join(re.findall(r"`([^`\n]+)`", text))))
    wanted = {*FUNCTIONS, *WORDS, *DRAWS, *MATRICES}
    assert not wanted - said, "the page on the language lacks these words"


def test_a_wrong_claim_is_seen() -> None:
    assert agrees("a\n...\nc\n", "a\nb\nb\nc\n")
    assert agrees("a\n...\n", "a\n")
    assert not agrees("a\n", "a\nb\n")
    assert not agrees("a\nb\n", "a\n")
    assert not agrees("a.c\n", "abc\n")
    assert agrees("off by 1.2e-15\n", "off by 8.6e-16\n")
    assert not agrees("off by 1.2e-15\n", "off by 8.6e-06\n")
    assert not agrees("...\nc\n", "a\nb\n")
    (block,) = blocks("text\n```console\n$ bptt cells\na\n$ bptt show a\n```\n")
    assert block.line == 3
    assert list(commands(block)) == [("bptt cells", "a\n"), ("bptt show a", "")]


def filled(document: str, folder: Path) -> str:
    """A document with what its commands print."""
    for block in blocks(document):
        save(block, folder)
        if block.language == "console":
            text = ""
            for command, claimed in commands(block):
                printed = shell(command, folder)
                keep = ANY_LINES in claimed.splitlines() or agrees(claimed, printed)
                text += f"{PROMPT}{command}\n{claimed if keep else printed}"
            document = document.replace(f"```console\n{block.text}```", f"```console\n{text}```", 1)
    return document


if __name__ == "__main__":
    for path in DOCUMENTS:
        with TemporaryDirectory() as folder:
            path.write_text(
                filled(path.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8"
            )
