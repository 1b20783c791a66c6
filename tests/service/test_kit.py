"""The offline kit, built and installed with no index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedfsd.errors import NotReadyError, UsageError
from fedfsd.service.kit import build

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path | None = None) -> str:
    """What a command prints; pip is told of no index at all."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_auditors_kit_installs_with_no_index(tmp_path: Path) -> None:
    try:
        kit = build(ROOT, tmp_path / "kit", auditor=True)
    except NotReadyError as error:
        pytest.skip(f"no package index here: {error.got}")
    run("sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS", cwd=kit)
    named = {line.split("  ", 1)[1] for line in (kit / "SHA256SUMS").read_text().splitlines()}
    assert named == {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()} - {
        "SHA256SUMS"
    }
    names = {line.split("==")[0] for line in (kit / "requirements.txt").read_text().splitlines()}
    assert "fedfsd" in names
    assert not {"torch", "flwr", "opacus"} & names
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    install = [
        "-m",
        "pip",
        "--isolated",
        "install",
        "--quiet",
        "--no-compile",
        "--no-index",
        "--require-hashes",
    ]
    install += ["--find-links", "wheels", "-r", "requirements.txt"]
    run(python, *install, cwd=kit)
    assert "verify" in run(python.with_name("fedfsd"), "audit", "--help", cwd=tmp_path)
    # A wheel that is not the one that was hashed does not install.
    wheel = next(kit.glob("wheels/rfc8785*"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = subprocess.run(
        [python, *install, "--force-reinstall"], cwd=kit, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr


def test_what_is_no_checkout_and_what_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="constraints"):
        build(tmp_path, tmp_path / "kit")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="something else"):
        build(ROOT, tmp_path)
    assert (tmp_path / "notes.txt").exists()
