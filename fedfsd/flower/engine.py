"""The engine: a stock SuperLink and SuperExec on loopback, and the few things we ask of them.

No app is shipped: a run is a bundle that names a ServerApp installed here. The Control API, which starts
code and registers nodes, is open to anybody in the open-source SuperLink; ours asks for a secret.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import tomli_w
from flwr.proto import control_pb2, fab_pb2
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError

from fedfsd.errors import NotReadyError, UsageError
from fedfsd.flower.loopback import certify
from fedfsd.flower.state import reopen

HOST = "127.0.0.1"
SERVER_APP = "fedfsd.simulation.apps:server"
# Flower wants a ClientApp named; of ours no process of Flower's ever loads one.
CLIENT_APP = "fedfsd.runner.client:simulated"
_PROJECT = "pyproject.toml"
_TASK_POLL_SECONDS = "0.25"
_CALL_SECONDS = 10.0


class Engine:
    """The engine whose state is in ``folder`` and whose SuperLink listens on loopback at ``port``.

    Calls to the SuperLink raise NotReadyError while it does not answer.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder.absolute(), port

    @property
    def address(self) -> str:
        """Where the SuperLink listens: host:port."""
        return f"{HOST}:{self.port}"

    @property
    def root_certificates(self) -> Path:
        """PEM; what a client of the SuperLink trusts."""
        return self.folder / "root.crt"

    @property
    def database(self) -> Path:
        """SQLite; runs, nodes and messages survive a restart in it."""
        return self.folder / "state.db"

    @property
    def control_secret(self) -> Path:
        """What the Control API asks for."""
        return self.folder / "control.secret"

    def prepare(self) -> None:
        """Make the folder, the certificate and the secrets; what is there already stays."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "home").mkdir(mode=0o700, exist_ok=True)
        certify(self.root_certificates, self.folder / "server.crt", self.folder / "server.key")
        for path in (self.control_secret, self.folder / "superexec.secret"):
            if not path.exists():
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_hex(32))

    def commands(self) -> dict[str, tuple[list[str], dict[str, str]]]:
        """Command line and whole environment of each process, by name."""
        scripts = Path(sys.executable).parent
        environment = os.environ | {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_LOG_LEVEL": os.environ.get("FLWR_LOG_LEVEL", "WARNING"),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _TASK_POLL_SECONDS,
            # SuperExec finds flwr-serverapp by name.
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
        superexec = [
            str(scripts / "flower-superexec"),
            *("--runtime-api-address", self.address),
            *("--root-certificates", str(self.root_certificates)),
            *("--superexec-auth-secret-file", str(self.folder / "superexec.secret")),
        ]
        superlink = [sys.executable, "-m", "fedfsd.flower.superlink", str(self.folder), str(self.port)]
        return {"superlink": (superlink, environment), "superexec": (superexec, environment)}

    def superlink_arguments(self) -> list[str]:
        """What ``flower-superlink`` is started with."""
        return [
            *("--host", HOST, "--port", str(self.port)),
            *("--ssl-ca-certfile", str(self.root_certificates)),
            *("--ssl-certfile", str(self.folder / "server.crt")),
            *("--ssl-keyfile", str(self.folder / "server.key")),
            "--enable-supernode-auth",
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(self.folder / "superexec.secret")),
            *("--database", str(self.database)),
            "--disable-runtime-dependency-installation",
        ]

    def reopen(self) -> int:
        """Have every instruction handed out again that no node confirmed or answered; how many those are."""
        return reopen(self.database)

    def ready(self) -> bool:
        """Whether the SuperLink answers."""
        try:
            with self._control(timeout=1.0) as control:
                control.ListRuns(control_pb2.ListRunsRequest(limit=1))
        except NotReadyError:
            return False
        return True

    def register(self, public_key: bytes) -> int:
        """Let the node with this key (PEM) join, once or again, and return its id."""
        with self._control() as control:
            try:
                request = control_pb2.RegisterNodeRequest(public_key=public_key)
                return int(control.RegisterNode(request).node_id)
            except httpx.HTTPStatusError as error:
                if _code(error) != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                    raise
            nodes = control.ListNodes(control_pb2.ListNodesRequest()).nodes_info
        for node in nodes:
            if node.public_key == public_key:
                return int(node.node_id)
        raise NotReadyError("SuperLink", got="a key that was registered and removed", expected="a new key")

    def submit(
        self,
        app: str = SERVER_APP,
        config: Mapping[str, str | int | float | bool] = {},
        *,
        client: str = CLIENT_APP,
    ) -> int:
        """Start a run of the installed ServerApp ``app`` (module:attribute) and return its id.

        ``config`` is what the app finds in ``context.run_config``; ``client`` is for Flower's own nodes.
        """
        fab = bundle(app, config, client=client)
        with self._control() as control:
            response = control.StartRun(
                control_pb2.StartRunRequest(
                    fab=fab_pb2.Fab(hash_str=hashlib.sha256(fab).hexdigest(), content=fab)
                )
            )
        if not response.HasField("run_id"):
            raise NotReadyError("SuperLink", got="no run", expected="a run that starts")
        return response.run_id

    def state(self, run_id: int) -> str:
        """``pending``, ``starting``, ``running`` or ``finished:completed``, ``:failed``, ``:stopped``.

        Raises UsageError when there is no such run.
        """
        with self._control() as control:
            try:
                runs = control.ListRuns(control_pb2.ListRunsRequest(run_id=run_id)).run_dict
            except httpx.HTTPStatusError as error:
                if _code(error) == ApiErrorCode.RUN_ID_NOT_FOUND:
                    raise UsageError("run", got=str(run_id), expected="a run of this SuperLink") from None
                raise
        status = runs[run_id].status
        return ":".join(part for part in (status.status, status.sub_status) if part)

    def stop(self, run_id: int) -> None:
        """End a run; one that has ended stays as it is."""
        with self._control() as control:
            try:
                control.StopRun(control_pb2.StopRunRequest(run_id=run_id))
            except httpx.HTTPStatusError as error:
                if _code(error) != ApiErrorCode.RUN_ALREADY_FINISHED:
                    raise

    @contextmanager
    def _control(self, *, timeout: float = _CALL_SECONDS) -> Iterator[ControlHttpClient]:
        """A client of the Control API; Flower's errors become NotReadyError."""
        try:
            with ControlHttpClient.from_server_address(
                self.address,
                False,
                self.root_certificates.read_bytes(),
                interceptors=[_Bearer(self.control_secret.read_text())],
            ) as client:
                client._client.timeout = timeout
                yield client
        except httpx.HTTPStatusError as error:
            raise NotReadyError(
                "SuperLink", got=f"HTTP {error.response.status_code}", expected="an answer"
            ) from None
        except (httpx.TransportError, OSError) as error:
            raise NotReadyError(
                "SuperLink", got=type(error).__name__, expected="an answer", hint="start it: coordinator up"
            ) from None


def bundle(app: str, config: Mapping[str, str | int | float | bool], *, client: str = CLIENT_APP) -> bytes:
    """A Flower app bundle with names and configuration, and no code."""
    project = {
        "project": {
            "name": "fedfsd",
            "version": "1.0.0",
            "description": "Names an installed app",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedfsd",
                    "components": {"serverapp": app, "clientapp": client},
                    "config": dict(config),
                }
            }
        },
    }
    content = tomli_w.dumps(project).encode()
    manifest = f"{_PROJECT},{hashlib.sha256(content).hexdigest()},{8 * len(content)}"
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in ((_PROJECT, content), (".info/CONTENT", manifest.encode())):
            file.writestr(zipfile.ZipInfo(name), data)  # without the time: the same names give the same bytes
    return made.getvalue()


class _Bearer:
    """Shows the secret with every call."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Add the header."""
        context.request.headers["authorization"] = f"Bearer {self._secret}"
        return call_next(context)


def _code(error: httpx.HTTPStatusError) -> int | None:
    known = FlowerError.from_json(error.response.text)
    return None if known is None else known.code
