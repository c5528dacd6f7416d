"""The pool of threads that torch has, used from C that was built without OpenMP.

Each test is a process of its own with a time limit: what is tested is a state of the process, and
what goes wrong with threads hangs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bptt.backends.cpu import compilers, threads

pytestmark = pytest.mark.skipif(not compilers.candidates(), reason="there is no C compiler here")

LIMIT = 120  # seconds, most of them for loading torch on a busy machine

# C code that asks every thread which it is, and a function that has it run on some of them.
START = r'''
import ctypes, os, re, sys, time
from pathlib import Path
from bptt.backends.cpu import threads
from bptt.backends.cpu.build import load

SOURCE = """
#include <pthread.h>
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);
struct Job { int (*thread)(void), (*threads)(void); long *out; };
static void work(void *data) {
  struct Job *job = data;
  int k = job->thread();
  job->out[2 * k] = 100 * job->threads() + k;
  job->out[2 * k + 1] = (long)pthread_self();
}
__attribute__((visibility("default")))
void run(Parallel parallel, int (*thread)(void), int (*threads)(void), unsigned n, long *out) {
  struct Job job = {thread, threads, out};
  parallel(work, &job, n, 0);
}
"""

def run(n):
    """What each of n threads says of itself, and how many there really were."""
    found = threads.fork_join()
    out = (ctypes.c_long * 64)()
    address = ctypes.c_void_p
    load(SOURCE).run(*map(address, (found.parallel, found.thread_num, found.num_threads)), n, out)
    return list(out[: 2 * n : 2]), len(set(out[1 : 2 * n : 2]))

def tasks():
    return len(os.listdir("/proc/self/task"))

def openmp():
    words = Path("/proc/self/maps").read_text().split()
    return {word for word in words if re.search(r"/lib(gomp|omp|iomp5)[^/]*$", word)}
'''

needs_torch = pytest.mark.skipif(
    not importlib.util.find_spec("torch"), reason="torch is not installed"
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="the system does not list what is mapped"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


def said_by(tmp_path: Path, code: str) -> list[str]:
    """The lines that a process prints; it must end well, and in time."""
    script = tmp_path / "script.py"
    script.write_text(START + code)
    environment = {**os.environ, "BPTT_CACHE": str(tmp_path / "cache")}
    environment.pop("OMP_NUM_THREADS", None)
    # Newer Pythons warn of what we test here.
    of_forks = "ignore:This process (pid:DeprecationWarning"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", of_forks, script],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_torch
def test_the_functions_run_work_on_the_threads_of_torch(tmp_path: Path) -> None:
    code = """
import torch
for n in (2, 1, 3, 2):
    torch.set_num_threads(n)
    print(threads.count(), run(threads.count()))
print(threads.explain(), threads.fork_join().library, sep="|")
"""
    *runs, explained = said_by(tmp_path, code)
    two = "2 ([200, 201], 2)"
    assert runs == [two, "1 ([100], 1)", "3 ([300, 301, 302], 3)", two]
    explanation, library = explained.split("|")
    assert explanation == f"2, of torch's OpenMP: {library}"
    assert re.search(r"/lib(gomp|omp|iomp5)[^/]*$", library)


@needs_torch
@needs_proc
def test_there_is_one_pool_and_one_library(tmp_path: Path) -> None:
    code = """
import torch
torch.set_num_threads(2)
libraries = openmp()
x = torch.ones(1 << 20)
(x + x).sum()
before = tasks()
print(run(2), tasks() - before, openmp() == libraries, len(libraries))
print(threads.fork_join().library in libraries)
(x + x).sum()
print(tasks() - before)
"""
    assert said_by(tmp_path, code) == ["([200, 201], 2) 0 True 1", "True", "0"]


@needs_proc
def test_without_torch_nothing_is_loaded(tmp_path: Path) -> None:
    code = """
print(threads.fork_join(), threads.count(), openmp(), "torch" in sys.modules)
print(threads.explain())
"""
    assert said_by(tmp_path, code) == [
        "None 1 set() False",
        "1, because torch, whose threads these would be, is not loaded",
    ]


@needs_torch
def test_what_was_not_there_before_torch_is_found_after_it(tmp_path: Path) -> None:
    code = """
print(threads.count())
import torch
torch.set_num_threads(2)
print(threads.count(), run(2))
"""
    assert said_by(tmp_path, code) == ["1", "2 ([200, 201], 2)"]


@needs_torch
@needs_fork
def test_a_forked_child_runs_one_thread(tmp_path: Path) -> None:
    code = """
import torch
torch.set_num_threads(2)
print(run(2), flush=True)
child = os.fork()
if child == 0:
    torch.set_num_threads(2)
    print(threads.count(), run(threads.count()), threads.explain(), flush=True)
    grandchild = os.fork()
    if grandchild == 0:
        print(threads.count(), flush=True)
        os._exit(0)
    os.waitpid(grandchild, 0)
    os._exit(0)
print(os.waitpid(child, 0)[1], threads.count(), run(2))
"""
    why = "1, because this process was forked, and threads do not come along"
    two = "([200, 201], 2)"
    assert said_by(tmp_path, code) == [two, f"1 ([100], 1) {why}", "1", f"0 2 {two}"]


@needs_torch
@needs_fork
def test_workers_of_a_data_loader_run_one_thread(tmp_path: Path) -> None:
    code = """
import torch
from torch.utils.data import DataLoader, Dataset

class Data(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, k):
        torch.set_num_threads(2)
        (said,), _ = run(threads.count())
        return torch.tensor([k, said, threads.count(), os.getpid() != PARENT])

PARENT = os.getpid()
torch.set_num_threads(2)
print(run(2))
loader = DataLoader(Data(), num_workers=2, multiprocessing_context="fork")
print([row.tolist() for row in loader])
print(run(2))
"""
    workers = [[[k, 100, 1, 1]] for k in range(4)]
    two = "([200, 201], 2)"
    assert said_by(tmp_path, code) == [two, str(workers), two]


@needs_torch
@needs_fork
def test_workers_that_are_spawned_have_their_own_threads(tmp_path: Path) -> None:
    code = """
import multiprocessing
def work():
    import torch
    torch.set_num_threads(2)
    print(threads.count(), run(2), flush=True)
if __name__ == "__main__":
    work()
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    print(child.exitcode)
"""
    two = "2 ([200, 201], 2)"
    assert said_by(tmp_path, code) == [two, two, "0"]


@needs_torch
def test_a_torch_without_openmp_has_no_threads_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.openmp, "is_available", lambda: False)
    monkeypatch.setattr(threads, "_has_openmp", threads._has_openmp.__wrapped__)
    assert threads.fork_join() is None
    assert threads.count() == 1
    assert threads.explain() == "1, because this torch was built without OpenMP"


@needs_torch
def test_a_library_that_lacks_a_function_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    search = threads._found.__wrapped__
    assert search() is not None
    address = threads._address
    for missing in ("GOMP_parallel", "omp_get_thread_num", "_"):

        def lacks(library: ctypes.CDLL, name: str, missing: str = missing) -> int:
            return 0 if missing in name else address(library, name)

        monkeypatch.setattr(threads, "_address", lacks)
        assert search() is None
    monkeypatch.setattr(threads, "_found", search)
    assert threads.count() == 1
    assert threads.explain().startswith("1, because torch's OpenMP library was not found")
