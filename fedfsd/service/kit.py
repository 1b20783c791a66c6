"""The offline kit: everything a data centre without a package index needs, made from a checkout.

python -m fedfsd.service.kit --output dist/kit            a region or a coordinator
python -m fedfsd.service.kit --output dist/kit --auditor  without torch and Flower
"""

from __future__ import annotations

import argparse
import email
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedfsd.errors import FedfsdError, NotReadyError, UsageError

NODE_EXTRAS = "node"
SBOM = "sbom.cdx.json"
# What the wheel of this package is built from.
_SOURCES = ("fedfsd", "pyproject.toml", "README.md", "LICENSE")
_DEPLOY = ("server/deploy", "clients/deploy")

_README = """\
fedfsd, offline kit ({kind}), for Python {python} on {platform}

1. Check that the kit is what was made; compare the hash of SHA256SUMS itself out of band:
     sha256sum --check --quiet SHA256SUMS && sha256sum SHA256SUMS
2. Install, with no network:
     python{python} -m venv /opt/fedfsd
     /opt/fedfsd/bin/pip install --no-index --require-hashes --find-links wheels -r requirements.txt
3. Go on with {next}.

sbom.cdx.json lists every package with licence and hash, in CycloneDX 1.6, for your scanner.
"""


def build(source: Path, output: Path, *, auditor: bool = False) -> Path:
    """Make the kit of the checkout ``source`` in ``output`` (replaced) and return ``output``.

    Wheels come from the package index that pip knows, in the versions of ``constraints.txt``.

    Raises:
        UsageError: ``source`` is no checkout, or ``output`` something else than a kit.
        NotReadyError: pip could not get or build a wheel.
    """
    if not (source / "constraints.txt").exists():
        raise UsageError(str(source), got="no constraints.txt", expected="a checkout of fedfsd")
    if output.exists() and any(output.iterdir()) and not (output / "SHA256SUMS").exists():
        raise UsageError(str(output), got="a folder of something else", expected="a new folder or a kit")
    shutil.rmtree(output, ignore_errors=True)
    wheels = output / "wheels"
    wheels.mkdir(parents=True)
    own = _own_wheel(source, wheels)
    extras = "" if auditor else f"[{NODE_EXTRAS}]"
    _pip(["--constraint", str(source / "constraints.txt"), f"{own}{extras}"], wheels)
    lines = [_requirement(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    (output / "requirements.txt").write_text("".join(lines), encoding="utf-8")
    (output / SBOM).write_text(json.dumps(sbom(wheels), indent=1) + "\n", encoding="utf-8")
    if not auditor:
        for folder in _DEPLOY:
            if (source / folder).is_dir():
                shutil.copytree(source / folder, output / folder)
    (output / "README.txt").write_text(_readme(auditor), encoding="utf-8")
    listed = sorted(path for path in output.rglob("*") if path.is_file())
    sums = "".join(f"{_sha256(path)}  {path.relative_to(output).as_posix()}\n" for path in listed)
    (output / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return output


def sbom(wheels: Path) -> dict[str, Any]:
    """What is in ``wheels``, as a CycloneDX bill of materials: each by name, version, licence and hash."""
    listed = [_component(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    (own,) = [one for one in listed if one["name"] == "fedfsd"]
    others = [one for one in listed if one is not own]
    # No date and no chance: the same wheels give the same file.
    content = "".join(one["hashes"][0]["content"] for one in listed)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, content).urn,
        "version": 1,
        "metadata": {"component": own | {"type": "application"}},
        "components": others,
    }


def _component(wheel: Path) -> dict[str, Any]:
    name, version, *_ = wheel.name.split("-")
    name = re.sub("[-_.]+", "-", name).lower()
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
        "hashes": [{"alg": "SHA-256", "content": _sha256(wheel)}],
    }
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [one for one in archive.namelist() if one.count("/") == 1 and one.endswith("info/METADATA")]
        stated = email.message_from_bytes(archive.read(path)).get("License-Expression")
    return made if stated is None else made | {"licenses": [{"expression": stated}]}


def _own_wheel(source: Path, wheels: Path) -> Path:
    """Build this package's wheel from a copy, so that the checkout stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _SOURCES:
            path = source / name
            if path.is_dir():
                shutil.copytree(path, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
        _pip(["--no-deps", "--no-build-isolation", folder], wheels)
    return next(wheels.glob("fedfsd-*.whl"))


def _pip(arguments: Sequence[str], wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReadyError(
            "pip wheel",
            got=done.stderr.strip().splitlines()[-1:] or f"exit code {done.returncode}",
            expected="every wheel of constraints.txt",
            hint="run it where a package index can be reached",
        )


def _requirement(wheel: Path) -> str:
    """One line that pip installs by hash alone."""
    name, version, *_ = wheel.name.split("-")
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{_sha256(wheel)}\n"


def _readme(auditor: bool) -> str:
    return _README.format(
        kind="auditor" if auditor else "region and coordinator",
        python=".".join(map(str, sys.version_info[:2])),
        platform=sysconfig.get_platform(),
        next="/opt/fedfsd/bin/fedfsd audit --help" if auditor else "clients/deploy and server/deploy",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Make a kit; print where it is and how large."""
    parser = argparse.ArgumentParser(prog="python -m fedfsd.service.kit", description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path(), help="the checkout")
    parser.add_argument("--output", type=Path, default=Path("dist/kit"), help="the folder of the kit")
    parser.add_argument("--auditor", action="store_true", help="without torch and Flower")
    given = parser.parse_args()
    try:
        kit = build(given.source.absolute(), given.output.absolute(), auditor=given.auditor)
    except FedfsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    size = sum(path.stat().st_size for path in kit.rglob("*") if path.is_file())
    print(f"{kit}: {len(list(kit.glob('wheels/*')))} wheels, {size / 2**20:.0f} MiB")
    print(f"sha256 of SHA256SUMS: {_sha256(kit / 'SHA256SUMS')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
