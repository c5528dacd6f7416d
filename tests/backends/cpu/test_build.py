"""C to a loaded library: which compiler, what is kept, whom the cache trusts, what is said."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import logging
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bptt.backends.cpu import build, compilers, objects
from bptt.backends.cpu.compilers import Compiler
from bptt.errors import BpttError, UserError

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler `cc`")

SHOWN = '__attribute__((visibility("default"))) '
SEVEN = f"{SHOWN}int number(void) {{ return 7; }}\n"
IN_A_PROCESS = (
    "import sys; from bptt.backends.cpu.build import load\n"
    "library = load(sys.argv[1]); print(library.number(), library._name)"
)

Script = Callable[..., Path]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a process that knows nothing yet."""
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path / "cache"))
    for name in ("BPTT_CC", "CC"):
        monkeypatch.delenv(name, raising=False)
    forget(monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """A compiler of the test's own, a shell script, which notes that it was called."""

    def make(body: str = 'exec cc "$@"', name: str = "mycc") -> Path:
        path, calls = tmp_path / name, tmp_path / "calls"
        path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{body}\n')
        path.chmod(0o755)
        monkeypatch.setenv("BPTT_CC", str(path))
        return calls

    return make


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(objects, "_why_not", {})


def held(place: Path) -> list[Path]:
    return sorted(place.glob("*.so"))


def compiled(calls: Path) -> int:
    """How many times the text of a test was compiled: checks and questions apart."""
    lines = calls.read_text().splitlines() if calls.exists() else []
    return sum("kernels.c" in line for line in lines)


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", IN_A_PROCESS, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# --- compiling and finding ------------------------------------------------------------------------


def test_a_text_is_compiled_once_and_loaded_once(
    place: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = script()
    library = build.load(SEVEN)
    assert library.number() == 7
    assert build.load(SEVEN) is library
    (kept,) = held(place)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    before = compiled(calls)
    forget(monkeypatch)
    assert build.load(SEVEN)._name == str(kept)
    with process(SEVEN) as other:
        assert other.communicate()[0].split() == ["7", str(kept)]
    assert compiled(calls) == before
    assert [path.name for path in place.iterdir()] == [kept.name]


def test_a_text_includes_our_files_and_takes_flags() -> None:
    text = f'#include "lanes.h"\n{SHOWN}int number(void) {{ return (int)sizeof(real) + MORE; }}\n'
    assert build.load(text, flags=["-DMORE=1"]).number() == 5
    assert build.load(text, flags=["-DMORE=1", "-DBPTT_REAL=double"]).number() == 9


def test_only_what_is_shown_is_seen_and_no_openmp_comes_in() -> None:
    library = build.load(f"int hidden(void) {{ return 1; }}\n{SEVEN}")
    assert not hasattr(library, "hidden")
    arguments = compilers.candidates()[0].arguments("native", ())
    assert not {"-fopenmp", "-ffast-math", "-Ofast"} & set(arguments)
    text = f"#ifdef _OPENMP\n#error openmp\n#endif\n{SEVEN}"
    assert build.load(text).number() == 7


def test_nan_and_infinity_keep_their_meaning() -> None:
    text = f"{SHOWN}int same(double x) {{ return x == x && x - x == 0; }}\n"
    same = build.load(text).same
    same.argtypes = [ctypes.c_double]
    assert [same(x) for x in (1.0, float("nan"), float("inf"))] == [1, 0, 0]


@pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="these are targets of x86-64"
)
def test_targets_differ_in_what_they_may_use(place: Path) -> None:
    macros = "defined(__SSE4_2__) + defined(__AVX2__) + defined(__AVX512F__)"
    text = f"#if {macros} == LEVEL\n{SEVEN}\n#else\n#error another level\n#endif\n"
    for level, target in enumerate(("x86-64-v2", "x86-64-v3", "x86-64-v4"), 1):
        # Compiled and not run: this processor may not have all of it.
        assert build.load(text, flags=[f"-DLEVEL={level}"], target=target)
    assert len(held(place)) == 3
    with pytest.raises(BpttError, match="another level"):
        build.load(text, flags=["-DLEVEL=3"], target="x86-64-v2")


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UserError, match="there is no target `x86-64-v9`"):
        build.load(SEVEN, target="x86-64-v9")


def test_an_object_is_found_by_all_that_it_depends_on(
    place: Path, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    included = tmp_path / "included"
    included.mkdir()
    header = included / "some.h"
    header.write_text("#define N 7\n")
    monkeypatch.setattr(compilers, "INCLUDED", included)
    version = tmp_path / "version"
    version.write_text("one")
    script(f'test "$1" = --version && exec cat {version}\nexec cc "$@"')

    def objects_after(text: str = SEVEN, **options: object) -> int:
        forget(monkeypatch)
        compilers._version.cache_clear()
        assert build.load(text, **options).number() == 7  # type: ignore[arg-type]
        return len({path.name.partition("-")[0] for path in held(place)})

    assert objects_after() == 1
    assert objects_after() == 1
    assert objects_after(SEVEN + "\n") == 2
    assert objects_after(flags=["-DX"]) == 3
    header.write_text("#define N 8\n")
    assert objects_after() == 4
    (included / "other.c").write_text("")
    assert objects_after() == 5
    version.write_text("another")
    assert objects_after() == 6
    os.utime(tmp_path / "mycc", (1, 1))
    assert objects_after() == 7
    monkeypatch.setattr(build, "_processor", lambda: ("another",))
    assert objects_after() == 8
    monkeypatch.setattr(build, "_FORMAT", "another")
    assert objects_after() == 9
    assert objects_after() == 9


def test_the_processor_is_known_by_what_it_can_do() -> None:
    known = build._processor()
    assert platform.machine() in known
    if Path("/proc/cpuinfo").exists():
        said = Path("/proc/cpuinfo").read_text()
        if "flags" in said:
            assert any(line.startswith("flags") and "sse2" in line for line in known)
        assert not any("MHz" in line for line in known), "it changes all the time"


def test_many_processes_at_once_are_safe(place: Path) -> None:
    running = [process(SEVEN) for _ in range(8)]
    said = [other.communicate(timeout=120)[0].split() for other in running]
    assert [other.returncode for other in running] == [0] * 8
    assert [words[0] for words in said] == ["7"] * 8
    assert {Path(words[1]) for words in said} <= set(held(place))
    assert sorted(place.iterdir()) == held(place), "nothing half-written is left"


def test_a_forked_child_loads_too(place: Path) -> None:
    code = (
        "import os, sys; from bptt.backends.cpu.build import load\n"
        "load(sys.argv[1])\n"
        "child = os.fork()\n"
        "print(*(load(sys.argv[1] + end).number() for end in ('', '\\n')), flush=True)\n"
        "if child: sys.exit(os.waitpid(child, 0)[1])\n"
    )
    command = [sys.executable, "-c", code, SEVEN]
    assert subprocess.check_output(command, text=True, timeout=120) == "7 7\n7 7\n"
    assert len(held(place)) == 2


# --- objects that are not what they should be -----------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def no_object(path: Path) -> None:
    data = b"no object, under a name that fits its bytes"
    path.with_name(f"{path.name.partition('-')[0]}-{objects._sum(data)}.so").write_bytes(data)
    path.unlink()


def linked(path: Path) -> None:
    elsewhere = path.with_suffix(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("damage", [cut, empty, one_bit, no_object, linked])
def test_a_damaged_object_is_built_again_once(
    damage: Callable[[Path], None], place: Path, script: Script
) -> None:
    calls = script()
    with process(SEVEN) as first:
        first.communicate()
    before = compiled(calls)
    damage(held(place)[0])
    assert build.load(SEVEN).number() == 7
    assert compiled(calls) == before + 2, "the check of the compiler, and the text"
    assert any(objects._intact(str(path)) and not path.is_symlink() for path in held(place))
    with process(SEVEN) as third:
        assert third.communicate()[0].startswith("7 ")
    assert compiled(calls) == before + 2


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_object_that_others_may_write_is_not_loaded(mode: int, place: Path) -> None:
    # Another number under the same key: only loading it would show.
    eight = build.load(SEVEN.replace("7", "8"))._name
    seven = build.load(SEVEN)._name
    wrong = place / f"{Path(seven).name.partition('-')[0]}-{eight.rpartition('-')[2]}"
    shutil.copy(eight, wrong)
    os.unlink(seven)
    key = Path(seven).name.partition("-")[0]
    assert list(objects.found(key)) == [str(wrong)]
    wrong.chmod(mode)
    assert list(objects.found(key)) == []
    wrong.chmod(0o600)
    owner = os.geteuid()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: owner + 1)
        assert not objects._intact(str(wrong))


def test_what_cannot_be_loaded_from_the_cache_is_loaded_from_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ctypes.CDLL

    def refuses(path: str) -> ctypes.CDLL:
        if path.startswith(str(place)):
            raise OSError(f"{path}: failed to map segment")  # as where nothing may be run
        return real(path)

    monkeypatch.setattr(ctypes, "CDLL", refuses)
    assert build.load(SEVEN).number() == 7
    said = f"cannot load from {place}: failed to map segment"
    assert objects.why_temporary() == said
    assert build.describe().temporary == said


# --- the folder -----------------------------------------------------------------------------------


def test_the_folder_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "newer" / "newest"
    monkeypatch.setenv("BPTT_CACHE", str(path))
    assert objects.folder() == str(path)
    assert objects.why_temporary() is None
    for made in (path, path.parent, path.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BPTT_CACHE", "~/mine")
    assert objects.wanted() == str(tmp_path / "mine")
    monkeypatch.delenv("BPTT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert objects.wanted() == str(tmp_path / "xdg" / "bptt")
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert objects.wanted() == str(tmp_path / ".cache" / "bptt")
    monkeypatch.setenv("HOME", "nowhere")
    assert objects.wanted() is None
    assert objects.why_temporary() == "there is no home folder"
    assert build.load(SEVEN).number() == 7


def open_folder(place: Path) -> str:
    place.mkdir()
    place.chmod(0o770)
    return f"others may write to {place}: `chmod go-w` it"


def open_parent(place: Path) -> str:
    place.mkdir()
    place.parent.chmod(0o702)
    return f"others may write to {place.parent}: `chmod go-w` it"


def link(place: Path) -> str:
    place.with_name("real").mkdir(0o700)
    place.symlink_to(place.with_name("real"))
    return f"{place} is a symbolic link; BPTT_CACHE may name the folder itself"


def file(place: Path) -> str:
    place.touch()
    return f"{place} is no folder"


@pytest.mark.parametrize("prepare", [open_folder, open_parent, link, file])
def test_a_folder_that_is_not_ours_alone_is_not_used(
    prepare: Callable[[Path], str], place: Path
) -> None:
    why = prepare(place)
    assert objects.why_temporary() == why
    assert objects.folder() != str(place)
    assert stat.S_IMODE(os.stat(objects.folder()).st_mode) == 0o700
    library = build.load(SEVEN)
    assert library.number() == 7
    assert os.path.dirname(library._name) == objects.folder()
    assert not (place.is_dir() and held(place))


def test_nothing_is_loaded_from_a_folder_that_others_may_write(place: Path) -> None:
    kept = build.load(SEVEN)._name
    key = Path(kept).name.partition("-")[0]
    assert list(objects.found(key)) == [kept]
    place.chmod(0o777)
    assert kept not in objects.found(key)


def test_a_folder_of_another_user_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(mode=0o700)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert str(objects.why_temporary()).endswith("belongs to another user")


def test_a_folder_under_one_for_all_with_the_sticky_bit_is_fine(place: Path) -> None:
    place.parent.chmod(0o1777)
    assert objects.folder() == str(place)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_made(
    number: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: str, mode: int = 0o777) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", refuses)
        assert objects.why_temporary() == f"cannot make {place}: {os.strerror(number)}"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_where_nothing_can_be_written_the_reason_is_kept(
    number: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_before = build.load(SEVEN)._name
    replace = os.replace

    def full(source: str, target: str) -> None:
        if target.startswith(str(place)):
            raise OSError(number, os.strerror(number))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    library = build.load(SEVEN + "\n")
    assert library.number() == 7
    assert not library._name.startswith(str(place))
    assert objects.why_temporary() == f"cannot write to {place}: {os.strerror(number)}"
    assert [path.name for path in place.iterdir()] == [Path(found_before).name]
    monkeypatch.setattr(build, "_loaded", {})
    assert build.load(SEVEN)._name == found_before, "what is there is still read"


def test_where_there_is_no_room_at_all_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setenv("BPTT_CACHE", "/dev/null/cache")
    monkeypatch.setattr(tempfile, "mkdtemp", refuses)
    objects._temporary.cache_clear()
    with pytest.raises(BpttError, match="No usable temporary directory found") as caught:
        build.load(SEVEN)
    assert "TMPDIR" in str(caught.value.help)
    engine = build.describe()
    assert engine.error is not None
    assert engine.folder is None


def test_what_a_killed_process_left_goes(place: Path) -> None:
    place.mkdir(mode=0o700)
    old, new = place / ".old.partial", place / ".new.partial"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    build.load(SEVEN)
    assert not old.exists()
    assert new.exists(), "somebody may be writing it"


@pytest.mark.parametrize("forked", [False, True])
def test_a_temporary_folder_goes_with_its_process(forked: bool, place: Path) -> None:
    place.touch()  # no folder
    code = (
        "import multiprocessing, os, sys\n"
        "from bptt.backends.cpu import objects\n"
        "def say(): print(objects.folder(), os.path.isdir(objects.folder()), flush=True)\n"
        "say()\n"
    )
    if forked:
        code += (
            "child = multiprocessing.get_context('fork').Process(target=say)\n"
            "child.start(); child.join(); say()\n"
        )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == (3 if forked else 1)
    for line in said:
        folder, was_there = line.split()
        assert was_there == "True"
        assert not os.path.exists(folder)
    assert len(set(said)) == (2 if forked else 1), "a child has its own"


# --- compilers ------------------------------------------------------------------------------------


def test_compilers_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_CC", "'my cc' -m64")
    monkeypatch.setenv("CC", "other")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    found = compilers.candidates()
    zig = (sys.executable, "-m", "ziglang", "cc")
    expected = [("my cc", "-m64"), ("other",), ("cc",), ("gcc",), ("clang",), zig]
    assert [compiler.command for compiler in found] == expected
    assert [compiler.origin for compiler in found] == ["$BPTT_CC", "$CC", "", "", "", ""]
    assert str(found[0]) == "'my cc' -m64 (from $BPTT_CC)"
    assert str(found[-1]) == "python -m ziglang cc"


def test_the_compiler_that_is_named_compiles(script: Script) -> None:
    calls = script()
    build.load(SEVEN)
    assert compiled(calls) == 2, "the check, and the text"


def test_a_compiler_may_be_named_from_where_one_is(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = script()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPTT_CC", "./mycc -DMORE=1")
    build.load(f"#if MORE == 1\n{SEVEN}\n#endif\n")
    assert compiled(calls) == 2


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 1", "it does not say its version"),
        (
            'exec cc -U__clang_major__ -D__clang_major__=9 -U__GNUC__ -D__GNUC__=9 "$@"',
            "GCC 12 or Clang 10 is needed",
        ),
        ('test "$1" = --version && exec cc "$@"\necho broken >&2; exit 3', "\n  broken"),
    ],
)
def test_a_compiler_that_will_not_do_is_refused(
    body: str, why: str, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script(body)
    refused = compilers.candidates()[0]
    assert why in str(refused.refusal)
    assert build.load(SEVEN).number() == 7, "the next one does it"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{refused} is not used: " in record.message
    assert why in record.message


def test_names_of_compilers_are_no_shell_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPTT_CC", f"cc; touch {tmp_path}/made")
    assert compilers.candidates()[0].refusal == "it is not there"
    monkeypatch.setenv("BPTT_CC", f"cc $(touch {tmp_path}/made)")
    assert compilers.candidates()[0].refusal is not None
    assert not (tmp_path / "made").exists()
    monkeypatch.setenv("BPTT_CC", "cc 'half")
    with pytest.raises(UserError, match=r"cannot read \$BPTT_CC: No closing quotation"):
        build.load(SEVEN)


def test_without_a_compiler_the_ways_on_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "nobodys-cc")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        build.load(SEVEN)
    assert caught.value.what == (
        "there is no C compiler for the CPU kernels\n  nobodys-cc (from $CC): it is not there"
    )
    for way in ("install", "`pip install ziglang`", 'backend="reference"'):
        assert way in str(caught.value.help)
    engine = build.describe()
    assert engine.error is not None
    assert engine.compiler is None
    assert [compiler.command for compiler in engine.refused] == [("nobodys-cc",)]


@pytest.mark.skipif(
    not importlib.util.find_spec("ziglang"), reason="the wheel `ziglang` is not installed"
)
def test_the_ziglang_wheel_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (zig,) = compilers.candidates()
    assert zig.is_zig
    assert "-mcpu=native" in zig.arguments("native", ())
    assert "-mcpu=x86_64_v3" in zig.arguments("x86-64-v3", ())
    assert build.load(SEVEN).number() == 7


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "sys", SimpleNamespace(platform="win32"))
    with pytest.raises(UserError, match="have never been tried on Windows"):
        build.load(SEVEN)


# --- what is said ---------------------------------------------------------------------------------


def test_what_the_compiler_says_is_shown() -> None:
    with pytest.raises(BpttError) as caught:
        build.load("int x = ;\n")
    first, second, *_ = caught.value.what.splitlines()
    assert first == f"{compilers.candidates()[0]} cannot compile this:"
    assert second.startswith("  kernels.c:1:9: error: expected expression")
    with pytest.raises(BpttError) as caught:
        build.load("".join(f"int x{n} = ;\n" for n in range(99)))
    lines = caught.value.what.splitlines()
    assert len(lines) == compilers._WORDS + 2
    assert lines[-1].endswith("lines more)")


def test_a_compiler_that_does_not_end_is_ended(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(f"sleep 60 & echo $! > {tmp_path}/child\nwait")
    monkeypatch.setattr(compilers, "_LIMIT", 1.0)
    compiler = Compiler((str(tmp_path / "mycc"),))
    begin = time.monotonic()
    with pytest.raises(BpttError, match="took longer than 1 s"):
        compilers.build(compiler, SEVEN, "native", (), str(tmp_path))
    assert time.monotonic() - begin < 30
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not _runs(child):
            break
        time.sleep(0.05)
    assert not _runs(child), "what the compiler started ends with it"


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_long_compilation_is_announced_once(
    script: Script,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "bptt")
    build.load(SEVEN)
    assert not caplog.records, "a quick one is not"
    script('sleep 0.2; exec cc "$@"')
    monkeypatch.setattr(compilers, "_MOMENT", 0.1)
    message = "compiling the CPU kernels of this cell (once) ..."
    compilers._show_once.cache_clear()
    assert compilers.candidates()[0].version
    assert not caplog.records, "to ask a compiler for its version is no compilation"
    build.load(SEVEN)
    build.load(SEVEN + "\n")
    assert [record.message for record in caplog.records] == [message]
    assert capsys.readouterr().err == ""
    compilers._show_once.cache_clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    build.load(SEVEN + "\n\n")
    build.load(SEVEN + "\n\n\n")
    assert capsys.readouterr().err == f"bptt: {message}\n"
    assert len(caplog.records) == 1


def test_describe_tells_of_a_matrix_unit(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, there in (("-DBPTT_TILES=0", False), ("-DBPTT_TILES=2 -DBPTT_BYTES=64", True)):
        monkeypatch.setenv("BPTT_CFLAGS", flags)
        engine = build.describe()
        assert engine.matrix_unit == there
        assert any(name == "matrices" for name, _ in build.findings(engine, "")) == there


def test_describe_tells_what_is_used(place: Path) -> None:
    engine = build.describe()
    assert engine.error is None
    assert engine.compiler is not None
    assert engine.compiler == next(c for c in compilers.candidates() if c.refusal is None)
    assert engine.vector_bytes in {16, 32, 64}
    assert (engine.folder, engine.objects, engine.temporary) == (str(place), 1, None)
    assert engine.bytes == held(place)[0].stat().st_size
    assert platform.machine() in engine.processor
