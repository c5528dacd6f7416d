"""The house, held by its imports: who stands on which floor, and who may call whom.

Where a test here fails, either the import is in the wrong room or the table below is out of date;
moving a room is a change of design and not a repair.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "bptt"

# A room may import rooms on lower floors. `bptt` is the package's own `__init__`.
FLOORS = {
    "errors": 0,
    "ir": 1,
    "language": 2,
    "calculus": 2,
    "printers": 3,
    "cells": 3,
    "backends": 4,
    "proof": 4,
    "cell": 5,
    "nn": 6,
    "bench": 6,
    "tasks": 6,
    "export": 6,
    "cli": 6,
    "bptt": 7,
}
# On one floor, besides: a task trains layers, an export writes them, a command runs all.
NEIGHBOURS = {
    "bench": {"nn"},
    "tasks": {"nn"},
    "export": {"nn", "tasks"},
    "cli": {"nn", "bench", "tasks", "export"},
}
# Each language (a file or folder in printers/) and each backend (a folder) is one of a kind and
# imports none of the others. What languages share: the walk, and the layout for people. What
# backends share: array functions, generated functions, what shapes say, rows that numbers choose.
COMMON = {
    "backends.arrays",
    "backends.generated",
    "backends.once",
    "backends.rows",
    "backends.shapes",
    "printers.expr",
    "printers.people",
    "printers.people.layout",
    "printers.people.reading",
    "printers.people.reasons",
    "printers.people.worked",
}
# A plan is printed in the language of its equations; Markdown is plain text with LaTeX in it,
# and plans.
DIALECTS = {
    "printers.plan": {"printers.text"},
    "printers.people.markdown": {
        "printers.people.plain",
        "printers.people.latex",
        "printers.plan",
    },
    "printers.people.mathml_figures": {"printers.people.mathml"},
    "printers.people.notebook": {
        "printers.people.mathml",
        "printers.people.mathml_figures",
        "printers.people.markdown",
        "printers.text",
    },
    "printers.people.page": {
        "printers.people.mathml",
        "printers.people.mathml_figures",
        "printers.people.page_diagram",
    },
    "printers.people.page_diagram": {"printers.people.mathml"},
    "printers.people.worked_text": {"printers.people.plain"},
    "printers.people.worked_json": {"printers.people.plain"},
    "printers.people.worked_latex": {"printers.people.latex"},
    "printers.people.worked_markdown": {"printers.people.worked_latex"},
}
# What a command imports within its function, so that the others stay quick.
HEAVY = {"nn", "tasks", "export", "bench", "backends", "proof"}

# What a room may import from outside, on loading and (lazily) within a function.
OUTSIDE = {
    "ir.ops": {"numpy"},
    "backends": {"numpy"},
    "backends.triton": {"numpy", "torch", "triton"},
    "proof": {"numpy"},
    "cell": {"numpy"},
    "nn": {"numpy", "torch"},
    "tasks": {"numpy", "torch", "rich", "safetensors", "matplotlib"},
    "export": {"numpy", "torch"},
    "bench": {"numpy", "click"},
    "cli": {"click"},
}
LAZILY = {
    "backends": {"torch", "triton"},
    "proof": {"torch"},
    "cell": {"torch"},
    "bench": {"torch", "rich"},
    "cli": {"numpy", "torch", "rich"},
}

MOST_LINES = 400
# Longer modules, each with the reason why it is one.
LONG = {
    "ir.ops": "one table: every op has its one row here",
}

# Nobody may call these. What stands behind them runs text that somebody else may have written.
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save")}
# Our own generated code, which holds no word of a user's, runs here.
RUNS_GENERATED_CODE = "backends.generated"

# Folders and files of tests that mirror no room.
TEST_FOLDERS = {"docs", "golden"}
TEST_FILES = {"house", "package"}


@dataclass(frozen=True)
class Import:
    """One import of a module of ours: what it names, its line, and whether loading runs it."""

    name: str
    line: int
    when: str  # "loading", "lazily" (in a function) or "types" (for the type checker alone)


@dataclass(frozen=True)
class Module:
    """A module by its dotted name without `bptt.`."""

    name: str
    path: Path
    text: str

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)


Rule = Callable[[Module], Iterator[str]]


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _modules() -> list[Module]:
    modules: list[Module] = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        modules.append(Module(".".join(parts) or "bptt", path, path.read_text(encoding="utf-8")))
    return modules


MODULES = _modules()
NAMES = {module.name for module in MODULES}


def _imports(module: Module) -> list[Import]:
    return list(_imports_in(module.tree.body, module, "loading"))


def _imports_in(body: list[ast.stmt], module: Module, when: str) -> Iterator[Import]:
    for statement in body:
        match statement:
            case ast.Import():
                for alias in statement.names:
                    yield Import(alias.name, statement.lineno, when)
            case ast.ImportFrom():
                yield from _from(statement, module, when)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports_in(statement.body, module, "lazily")
            case ast.If() if "TYPE_CHECKING" in ast.unparse(statement.test):
                yield from _imports_in(statement.body, module, "types")
                yield from _imports_in(statement.orelse, module, when)
            case _:
                for block in ("body", "orelse", "finalbody"):
                    yield from _imports_in(getattr(statement, block, []), module, when)
                for part in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
                    yield from _imports_in(part.body, module, when)


def _from(statement: ast.ImportFrom, module: Module, when: str) -> Iterator[Import]:
    assert statement.level == 0, f"{module.name}:{statement.lineno}: import by the full name"
    assert statement.module is not None
    if statement.module.split(".")[0] != "bptt":
        yield Import(statement.module, statement.lineno, when)
        return
    for alias in statement.names:
        whole = f"{statement.module}.{alias.name}"
        is_module = whole.removeprefix("bptt.") in NAMES
        yield Import(whole if is_module else statement.module, statement.lineno, when)


def _ours(module: Module) -> Iterator[tuple[str, Import]]:
    """The modules of ours that a module imports, without `bptt.`."""
    for entry in _imports(module):
        if entry.name.split(".")[0] == "bptt":
            yield entry.name.removeprefix("bptt."), entry


def _allowed(table: dict[str, set[str]], name: str) -> set[str]:
    """The row of a table for a module: its own, or that of the nearest folder it stands in."""
    while name:
        if name in table:
            return table[name]
        name = name.rpartition(".")[0]
    return set()


def floors(module: Module) -> Iterator[str]:
    """A room imports the floors below its own."""
    if module.room not in FLOORS:
        yield f"{module.path}: no floor is known for {module.room}/"
        return
    for target, entry in _ours(module):
        room = target.split(".")[0]
        near = room == module.room or room in NEIGHBOURS.get(module.room, set())
        if not near and FLOORS[room] >= FLOORS[module.room]:
            yield f"{module.path}:{entry.line}: {module.name} may not import {target}"


def kinds(module: Module) -> Iterator[str]:
    """A language imports no other language, a backend no other backend."""
    if module.room not in {"printers", "backends"}:
        return
    kind = _kind(module.name)
    fine = COMMON if kind in COMMON else {kind, *COMMON, *DIALECTS.get(kind, set())}
    for target, entry in _ours(module):
        if target.split(".")[0] == module.room and _kind(target) not in fine:
            yield f"{module.path}:{entry.line}: {module.name} may not import {target}"


def _kind(name: str) -> str:
    """The language or backend that a module belongs to."""
    depth = 3 if name.startswith("printers.people.") else 2
    return ".".join(name.split(".")[:depth])


def outside(module: Module) -> Iterator[str]:
    """What comes from outside has its rooms."""
    loading = _allowed(OUTSIDE, module.name)
    lazily = loading | _allowed(LAZILY, module.name)
    for entry in _imports(module):
        package = entry.name.split(".")[0]
        if package == "bptt" or package in sys.stdlib_module_names:
            continue
        if package not in (loading if entry.when == "loading" else lazily):
            where = f"{module.path}:{entry.line}"
            yield f"{where}: {module.name} may not import {package} ({entry.when})"


def quick(module: Module) -> Iterator[str]:
    """`bptt derive` does not wait for what `bptt train` needs: commands import in functions."""
    if module.room != "cli":
        return
    for target, entry in _ours(module):
        room, _, inner = target.partition(".")
        if entry.when == "loading" and room in HEAVY and inner:
            yield f"{module.path}:{entry.line}: import {target} within the function"


def one_entry(module: Module) -> Iterator[str]:
    """Only `run` speaks to the op: called bare under forward mode, it answers without a tangent."""
    if module.name != "nn.run" and "ops.bptt" in module.text:
        yield f"{module.path}: torch.ops.bptt has one caller, nn/run.py"


def short(module: Module) -> Iterator[str]:
    """A module can be read in one sitting."""
    lines = len(module.text.splitlines())
    if lines > MOST_LINES and module.name not in LONG:
        yield f"{module.path} has {lines} lines: split it by what it does"
    if lines <= MOST_LINES and module.name in LONG:
        yield f"{module.path} is short again: take it off the list"


def never_run(module: Module) -> Iterator[str]:
    """Text from outside is parsed and never run, nor unpickled."""
    for node in ast.walk(module.tree):
        where = f"{module.path}:{getattr(node, 'lineno', 0)}"
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                ours = module.name.startswith(RUNS_GENERATED_CODE) and name in {"exec", "compile"}
                if not ours:
                    yield f"{where}: {name}()"
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                if (owner, attribute) in FORBIDDEN_ATTRIBUTES:
                    yield f"{where}: {owner}.{attribute} reads or writes pickles"
            case _:
                pass
    for entry in _imports(module):
        if entry.name.split(".")[0] in FORBIDDEN_MODULES:
            yield f"{module.path}:{entry.line}: {entry.name}"


RULES = [floors, kinds, outside, quick, one_entry, short, never_run]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    wrong = [complaint for module in MODULES for complaint in rule(module)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (floors, "ir.new", "from bptt.calculus.derive import derive"),
        (floors, "ir.new", "def f():\n    import bptt.calculus.derive"),
        (floors, "calculus.new", "from bptt.language import parse"),
        (floors, "proof.new", "try:\n    import bptt.backends\nexcept ImportError:\n    pass"),
        (floors, "nn.new", "from bptt.tasks import training"),
        (floors, "attic.new", ""),
        (kinds, "printers.c", "from bptt.printers import text"),
        (kinds, "printers.people.plain", "from bptt.printers.people import latex"),
        (kinds, "printers.expr", "from bptt.printers.text import text"),
        (kinds, "backends.cpu.build", "from bptt.backends.reference.run import run"),
        (outside, "calculus.new", "import torch"),
        (outside, "calculus.new", "def f():\n    import torch"),
        (outside, "backends.cpu.build", "import torch"),
        (outside, "errors", "from numpy.typing import NDArray"),
        (quick, "cli.new", "from bptt.tasks.training import Trainer"),
        (one_entry, "nn.new", "torch.ops.bptt.run(text, tensors)"),
        (short, "nn.new", "\n" * (MOST_LINES + 1)),
        (short, "ir.ops", ""),
        (never_run, "language.new", "eval(text)"),
        (never_run, "language.new", "exec(text)"),
        (never_run, "backends.reference.new", "eval(text)"),
        (never_run, "tasks.new", "import pickle"),
        (never_run, "tasks.new", "model = torch.load(path)"),
    ],
)
def test_a_broken_rule_is_seen(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Module(name, Path(f"{name}.py"), text)))


def _python_files() -> list[Path]:
    folders = ("src", "tests", "scripts")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_what_is_left_to_do_says_until_when() -> None:
    word = "TO" + "DO"
    condition = re.compile(word + r": .*\b(once|when|until|after)\b")
    for path in _python_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            well = word not in line or condition.search(line)
            assert well, f"{path}:{number}: write `{word}: what, once when it can go`"


def test_tests_mirror_the_source() -> None:
    rooms = {module.room for module in MODULES if "." in module.name}
    with_tests = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    for room in sorted(rooms):
        folder = ROOT / "tests" / room
        has_tests = any(path == folder or folder in path.parents for path in with_tests)
        assert has_tests, f"no tests for src/bptt/{room}/ in tests/{room}/"
    for path in sorted((ROOT / "tests").iterdir()):
        if path.is_dir() and not path.name.startswith((".", "__")):
            known = path.name in FLOORS.keys() | TEST_FOLDERS
            assert known, f"tests/{path.name}/ mirrors no room of src/bptt/"
        if path.name.startswith("test_"):
            known = path.stem.removeprefix("test_") in NAMES | TEST_FILES
            assert known, f"tests/{path.name} mirrors no module of src/bptt/"


def test_tolerances_stand_in_one_place() -> None:
    """A number in a test is a tolerance that nobody derived; tests/tolerances.py says why each."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(_parsed(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in {"rtol", "atol", "rel", "abs"}:
                literal = isinstance(node.value, ast.Constant) and node.value.value not in {0, None}
                assert not literal, f"{path}:{node.value.lineno}: take it from tolerances.py"


def _loads(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded at the end of a piece of code."""
    code = f"{code}\nimport sys; print('loaded:', *sorted(sys.modules))"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "loaded:"
    return set(last[1:])


def test_the_package_loads_without_what_training_needs() -> None:
    loaded = _loads("import bptt")
    assert "bptt.cell" in loaded
    for name in ("torch", "triton", "click", "rich", "matplotlib", "bptt.nn", "bptt.tasks"):
        assert name not in loaded, f"`import bptt` imports {name}"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["cells"], ["show", "lstm"], ["derive", "lstm"], ["plan", "lstm"]]
)
def test_a_command_loads_only_what_it_needs(arguments: list[str]) -> None:
    loaded = _loads(
        "from bptt.cli.main import main\n"
        "import sys\n"
        f"sys.argv = ['bptt', *{arguments}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
    )
    for name in ("torch", "triton", "matplotlib", "safetensors", "bptt.nn", "bptt.backends"):
        assert name not in loaded, f"`bptt {' '.join(arguments)}` imports {name}"


def test_public_names_are_listed_and_no_module_hides_one() -> None:
    bptt = importlib.import_module("bptt")
    assert bptt.__all__ == sorted(bptt.__all__)
    for name in bptt.__all__:
        assert getattr(bptt, name).__doc__ or not callable(getattr(bptt, name)), name
        assert importlib.util.find_spec(f"bptt.{name}") is None, f"bptt.{name} is a module too"


def test_the_readme_and_ci_run_one_test_command() -> None:
    shown = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(shown.stdout) == 1
    assert shown.stdout.endswith("/python scripts/test.py\n")
    assert "pytest" not in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_constraints_name_a_version_of_everything_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        asked += extra
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    comment, *lines = text.splitlines()
    assert comment.startswith("# ")
    pinned = {line.partition("==")[0].lower(): line.partition("==")[2] for line in lines}
    assert all(pinned.values()), "constraints.txt pins exact versions"
    assert not any("+" in version for version in pinned.values()), "no build tags in versions"
    names = {re.split(r"[^A-Za-z0-9_.-]", item)[0].lower() for item in asked} - {"bptt"}
    assert names <= pinned.keys(), f"not pinned: {sorted(names - pinned.keys())}"


def test_the_command_is_installed() -> None:
    scripts = Path(sysconfig.get_path("scripts"))
    found = [scripts / name for name in ("bptt", "bptt.exe") if (scripts / name).exists()]
    assert found, "install the package first: pip install -c constraints.txt -e '.[dev]'"
