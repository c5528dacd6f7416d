"""What an installed package holds: the same files as the source."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_every_file_of_the_source(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("bptt/")}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "bptt").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == source
    assert "bptt/py.typed" in held
    assert "bptt/cells/lstm.cell" in held
    # torch is asked for by the extras alone, and nobody's torch is too new.
    torch = [line for line in text.splitlines() if line.startswith("Requires-Dist: torch")]
    assert {line.partition(";")[0] for line in torch} == {"Requires-Dist: torch>=2.11"}
    assert all("extra ==" in line for line in torch)
