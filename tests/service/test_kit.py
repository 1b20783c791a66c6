"""The offline kit, built and installed with no index."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fedfsd.errors import NotReadyError, UsageError
from fedfsd.service.kit import SBOM, build, sbom

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path | None = None) -> str:
    """What a command prints; pip is told of no index at all."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def faults(found: object) -> object | None:
    """What the schema of CycloneDX objects to."""
    # Loading its grammar of addresses takes longer than all other imports of a worker but torch.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))


def wheel(folder: Path, name: str, version: str, *metadata: str) -> None:
    """A wheel of nothing but its metadata."""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        lines = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *metadata])
        archive.writestr(f"{name}-{version}.dist-info/METADATA", lines)


def test_the_bill_of_materials_is_one(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    wheel(tmp_path, "fedfsd", "0.1.0", "License-Expression: Apache-2.0")
    wheel(tmp_path, "torch", "2.13.0+cpu", "License: BSD")
    wheel(tmp_path, "Some_Thing.else", "1.0", "License-Expression: MIT OR Apache-2.0")
    found = sbom(tmp_path)
    assert found == sbom(tmp_path)  # by nothing but the wheels
    assert faults(found) is None
    assert found["metadata"]["component"]["name"] == "fedfsd"
    named = {one["name"]: one for one in found["components"]}
    assert set(named) == {"some-thing-else", "torch"}
    assert named["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    content = (tmp_path / "torch-2.13.0+cpu-py3-none-any.whl").read_bytes()
    assert named["torch"]["hashes"][0]["content"] == hashlib.sha256(content).hexdigest()
    assert "licenses" not in named["torch"]  # a text of its own is no expression
    first = found["serialNumber"]
    wheel(tmp_path, "torch", "2.13.0+cpu", "License: other")
    assert sbom(tmp_path)["serialNumber"] != first


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
    listed = json.loads((kit / SBOM).read_text(encoding="utf-8"))
    assert faults(listed) is None
    assert len(listed["components"]) + 1 == len(list(kit.glob("wheels/*.whl")))
    names = {line.split("==")[0] for line in (kit / "requirements.txt").read_text().splitlines()}
    assert "fedfsd" in names
    assert not {"torch", "flwr", "opacus"} & names
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",
    ]
    install += ["--no-index", "--require-hashes", "--find-links", "wheels", "-r", "requirements.txt"]
    run(*install, cwd=kit)
    assert "verify" in run(python.with_name("fedfsd"), "audit", "--help", cwd=tmp_path)
    # A wheel that is not the one that was hashed does not install.
    wheel = next(kit.glob("wheels/rfc8785*"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = subprocess.run(
        [*map(str, install), "--force-reinstall"], cwd=kit, capture_output=True, text=True, check=False
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
