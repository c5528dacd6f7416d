"""C compilers: which there are, which of them will do, and one run of one of them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bptt.errors import BpttError, UserError

INCLUDED = Path(__file__).parent  # the folder of what C texts include
TARGETS = ("native", "x86-64-v2", "x86-64-v3", "x86-64-v4")

# NaN and infinity keep their meaning: no -ffast-math. Threads come from outside: no -fopenmp.
_FLAGS = (
    *("-O2", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fPIC", "-shared", "-fvisibility=hidden"),
)
_FLAGS_AT_END = ("-lm",)

_LIMIT = 120.0  # seconds that a compiler may take
_ANSWER = 20.0  # and for saying its version
_MOMENT = 0.7  # after so many seconds a user wants to know what is going on
_WORDS = 12  # lines of a compiler's words that an error shows

_CHECK = """\
#if defined(__clang__) ? __clang_major__ < 10 : __GNUC__ < 12
#error "GCC 12 or Clang 10 is needed, or a newer one"
#endif
typedef float V __attribute__((vector_size(16)));
typedef int I __attribute__((vector_size(16)));
V bptt_check(V a, V b) { return (V)((a < b) & (I)__builtin_shufflevector(a, b, 0, 4, 1, 5)); }
"""


@dataclass(frozen=True)
class Compiler:
    """One way to call a compiler. `origin`: who named it, empty where nobody did."""

    command: tuple[str, ...]
    origin: str = ""

    def __str__(self) -> str:
        said = "python -m ziglang cc" if self.is_zig else shlex.join(self.command)
        return f"{said} (from {self.origin})" if self.origin else said

    @property
    def is_zig(self) -> bool:
        return self.command[1:3] == ("-m", "ziglang")

    @property
    def version(self) -> str:
        """What it says of itself; empty if nothing."""
        return _version(self.command)

    @property
    def refusal(self) -> str | None:
        """Why it will not do, or None. Asked once a process."""
        return _refusal(self)

    @property
    def identity(self) -> tuple[str, ...]:
        """What changes when the compiler does: its path, size, age and version."""
        path = os.path.realpath(shutil.which(self.command[0]) or self.command[0])
        try:
            found = os.stat(path)
        except OSError:
            return (*self.command, path, self.version)
        return (*self.command, path, str(found.st_size), str(found.st_mtime_ns), self.version)

    def arguments(self, target: str, flags: Sequence[str]) -> tuple[str, ...]:
        """The command for one file to a shared object for `target`, without their names."""
        return (*self.command, *_FLAGS, _tuned(target, zig=self.is_zig), *flags)


def candidates() -> list[Compiler]:
    """The compilers to try, in order: those that are named, those on the path, the wheel."""
    found = [
        Compiler(tuple(words), f"${name}") for name in ("BPTT_CC", "CC") if (words := _split(name))
    ]
    found += [Compiler((name,)) for name in ("cc", "gcc", "clang") if shutil.which(name)]
    if importlib.util.find_spec("ziglang"):
        found.append(Compiler((sys.executable, "-m", "ziglang", "cc")))
    return found


def usable(compiler: Compiler) -> bool:
    """Whether it will do. One that was named and will not is reported, once."""
    if compiler.refusal and compiler.origin:
        _warn(compiler)
    return compiler.refusal is None


def none_of(tried: Sequence[Compiler]) -> UserError:
    """The error where no compiler will do: why each was refused, and the ways on."""
    refused = "".join(f"\n  {c}: {c.refusal}" for c in tried)
    what = "there is no C compiler for the CPU kernels" + refused
    install = "`xcode-select --install`" if sys.platform == "darwin" else "`apt install gcc`"
    help = (
        f"install one ({install}, or `pip install ziglang`, which brings one), "
        'or choose backend="reference", which is slower and needs none'
    )
    return UserError(what, help=help)


def build(compiler: Compiler, source: str, target: str, flags: Sequence[str], folder: str) -> str:
    """Compile C into a shared object in `folder`, a private one; its path. Raises BpttError."""
    Path(folder, "kernels.c").write_text(source, encoding="utf-8")
    files = (f"-I{INCLUDED}", "-o", "kernels.so", "kernels.c")
    command = (*compiler.arguments(target, flags), *files, *_FLAGS_AT_END)
    try:
        status, words = _run(command, folder, _LIMIT, announced=True)
    except subprocess.TimeoutExpired:
        help = f"try another compiler: BPTT_CC=clang; this one is {compiler}"
        raise BpttError(f"the C compiler took longer than {_LIMIT:g} s", help=help) from None
    except OSError as error:
        raise BpttError(f"cannot start {compiler}: {error.strerror}") from None
    if status:
        lines = [line for line in words.splitlines() if line.strip()]
        shown = "".join(f"\n  {line}" for line in lines[:_WORDS])
        more = f"\n  (and {len(lines) - _WORDS} lines more)" if len(lines) > _WORDS else ""
        raise BpttError(f"{compiler} cannot compile this:{shown}{more}")
    return os.path.join(folder, "kernels.so")


def _split(name: str) -> list[str]:
    """The words of a command in the environment."""
    try:
        return shlex.split(os.environ.get(name, ""))
    except ValueError as error:
        raise UserError(f"cannot read ${name}: {error}", help="write a command: gcc-12") from None


def _tuned(target: str, *, zig: bool) -> str:
    if target not in TARGETS:
        raise UserError(f"there is no target `{target}`", help=f"there are {', '.join(TARGETS)}")
    if target == "native" and (zig or platform.machine().lower() in {"arm64", "aarch64"}):
        return "-mcpu=native"
    return f"-mcpu={target.replace('-', '_')}" if zig else f"-march={target}"


@cache
def _version(command: tuple[str, ...]) -> str:
    with tempfile.TemporaryDirectory(prefix="bptt-") as folder:
        try:
            status, words = _run((*command, "--version"), folder, _ANSWER)
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return "" if status else words.strip()


@cache
def _refusal(compiler: Compiler) -> str | None:
    if not shutil.which(compiler.command[0]):
        return "it is not there"
    if not compiler.version:
        return "it does not say its version"
    try:
        with tempfile.TemporaryDirectory(prefix="bptt-") as folder:
            build(compiler, _CHECK, "native", (), folder)
    except BpttError as error:
        return error.what
    return None


@cache
def _warn(compiler: Compiler) -> None:
    logging.getLogger("bptt").warning("%s is not used: %s", compiler, compiler.refusal)


def _run(
    command: Sequence[str], folder: str, seconds: float, *, announced: bool = False
) -> tuple[int, str]:
    """Exit status and words. What the compiler writes besides goes into `folder`."""
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": folder}
    program = os.path.abspath(shutil.which(command[0]) or command[0])  # it runs in another folder
    with subprocess.Popen(
        [program, *command[1:]],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            words = _words(process, seconds, announced)
        except BaseException:  # the compiler proper is a child of the driver: end both
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, words


def _words(process: subprocess.Popen[bytes], seconds: float, announced: bool) -> str:
    try:
        said, _ = process.communicate(timeout=_MOMENT)
    except subprocess.TimeoutExpired:
        if announced:
            _show_once()
        said, _ = process.communicate(timeout=seconds - _MOMENT)
    return said.decode("utf-8", "replace")


@cache
def _show_once() -> None:
    message = "compiling the CPU kernels of this cell (once) ..."
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"bptt: {message}\n")
        sys.stderr.flush()
    else:
        logging.getLogger("bptt").info(message)
