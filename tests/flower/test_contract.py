"""What the adapter relies on in Flower 1.41 beyond its public API; a failure says what it changed."""

from __future__ import annotations

import inspect
from importlib import import_module, metadata
from pathlib import Path

import pytest
from flwr.app import Metadata
from flwr.supercore.error import ApiErrorCode

from fedfsd.flower.engine import Engine


def test_the_version() -> None:
    assert metadata.version("flwr").startswith("1.41."), "read Flower's changes, then move this test"


@pytest.mark.parametrize(
    ("place", "parameters"),
    [
        ("flwr.supernode.fleet_http_client:FleetHttpClient.from_server_address",
         "server_address insecure root_certificates interceptors retry_invoker"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.PullMessages", "self request"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.PushMessages", "self request"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.PullObject", "self request"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.PushObject", "self request"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.ConfirmMessageReceived", "self request"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.SendNodeHeartbeat", "self request"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient.ActivateNode", "self request"),
        ("flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor.intercept",
         "self context call_next"),
        ("flwr.supercore.control.control_http_client:ControlHttpClient.StartRun", "self request"),
        ("flwr.supercore.control.control_http_client:ControlHttpClient.StopRun", "self request"),
        ("flwr.supercore.control.control_http_client:ControlHttpClient.ListRuns", "self request"),
        ("flwr.supercore.control.control_http_client:ControlHttpClient.ListNodes", "self request"),
        ("flwr.supercore.control.control_http_client:ControlHttpClient.RegisterNode", "self request"),
        ("flwr.app.message:make_message", "metadata content error"),
        ("flwr.app.message:remove_content_from_message", "message"),
        ("flwr.supercore.inflatable.inflatable_object:get_object_body", "object_content cls"),
        ("flwr.superlink.auth_plugin:NoOpControlAuthnPlugin.validate_tokens_in_metadata", "self metadata"),
        ("flwr.superlink.cli.flower_superlink:load_control_authn_plugin", ""),
        ("flwr.superlink.cli.flower_superlink:flower_superlink", ""),
    ],
)  # fmt: skip
def test_a_private_name_is_where_it_was(place: str, parameters: str) -> None:
    module, _, path = place.partition(":")
    found = import_module(module)
    for part in path.split("."):
        assert hasattr(found, part), f"Flower has no {place} any more: fedfsd/flower uses it"
        found = getattr(found, part)
    now = " ".join(inspect.signature(found).parameters)
    assert now == parameters, f"{place} takes ({now}) now: fedfsd/flower calls it with ({parameters})"


def test_the_commands_take_our_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path, 18000)
    superlink = import_module("flwr.superlink.cli.flower_superlink")._parse_args_run_superlink()
    taken = superlink.parse_args(engine.superlink_arguments())
    assert (taken.host, taken.port, taken.isolation) == ("127.0.0.1", 18000, "process")
    assert taken.enable_supernode_auth, "nodes must sign"
    assert not taken.insecure
    assert not taken.runtime_dependency_install, "nothing is installed at run time"
    commands = engine.commands()
    superexec = import_module("flwr.supercore.cli.flower_superexec")._parse_args()
    taken = superexec.parse_args(commands["superexec"][0][1:])
    assert (taken.runtime_api_address, taken.executor) == ("127.0.0.1:18000", "subprocess")
    assert Path(commands["superexec"][0][0]).exists()
    for _, environment in commands.values():
        assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
        assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
        assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        assert environment["FLWR_HOME"].startswith(str(tmp_path))
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.25")
    assert import_module("flwr.supercore.superexec.run_superexec")._get_task_poll_interval() == 0.25


def test_error_codes_and_bounds() -> None:
    catalog = import_module("flwr.supercore.error.catalog").API_ERROR_MAP
    assert catalog[ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED].http_status_code == 403
    assert {
        ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,
        ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE,
        ApiErrorCode.RUN_ID_NOT_FOUND,
        ApiErrorCode.RUN_ALREADY_FINISHED,
    } <= set(catalog)
    constant = import_module("flwr.common.constant")
    assert (constant.HEARTBEAT_MAX_INTERVAL, constant.HEARTBEAT_PATIENCE) == (1800, 2)
    assert import_module("flwr.supercore.constant").OBJECT_PUSH_SESSION_TTL_SECONDS == 180
    known = "self run_id message_id src_node_id dst_node_id reply_to_message_id group_id created_at ttl"
    assert " ".join(inspect.signature(Metadata.__init__).parameters).startswith(known)


def test_the_tables_that_are_looked_into() -> None:
    link = import_module("flwr.supercore.state.schema.linkstate_models")
    store = import_module("flwr.supercore.state.schema.objectstore_models")
    for model, columns in (
        (link.MessageIns, {"message_id", "dst_node_id", "delivered_at"}),
        (link.MessageRes, {"reply_to_message_id", "delivered_at"}),
        (store.StoredObject, {"object_id"}),
    ):
        assert columns <= set(model.__table__.columns.keys()), f"{model.__tablename__}: flower/state.py"
    assert (link.MessageIns.__tablename__, link.MessageRes.__tablename__) == ("message_ins", "message_res")
    assert store.StoredObject.__tablename__ == "objects"


def test_what_link_grid_makes_faster() -> None:
    pull = import_module("flwr.supercore.inflatable.inflatable_utils").pull_objects
    grid = import_module("flwr.superlink.grid.http_grid")
    assert grid.pull_objects is pull
    assert {"initial_backoff", "backoff_cap", "max_tries_per_object", "max_time"} <= set(pull.__kwdefaults__)
    invoker = grid.HttpGrid(token="x")._retry_invoker
    assert callable(invoker.on_backoff)
    assert callable(invoker.should_giveup)
    assert next(invoker.wait_gen_factory()) > 0
