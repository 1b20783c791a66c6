"""The committed half of the border is what protoc makes of border.proto."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedfsd.border import border_pb2, rpc
from fedfsd.coordinator.enrolment_service import Enrolment
from fedfsd.coordinator.servicer import Servicer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "fedfsd" / "border"


def test_make_proto_changes_nothing(tmp_path: Path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed: run make proto once")
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            *("-I", str(ROOT)),
            *(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")),
            "fedfsd/border/border.proto",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    files = sorted(tmp_path.rglob("*.py*"))
    assert [file.name for file in files] == ["border_pb2.py", "border_pb2.pyi"]
    for file in files:
        assert file.read_text() == (FOLDER / file.name).read_text(), f"{file.name} differs: run make proto"


@pytest.mark.parametrize(("service", "servicer"), [(rpc.BORDER, Servicer), (rpc.ENROLMENT, Enrolment)])
def test_every_call_is_answered(service, servicer):
    methods = border_pb2.DESCRIPTOR.services_by_name[service].methods_by_name
    assert set(methods) == {name for name in vars(servicer) if name[0].isupper()}
