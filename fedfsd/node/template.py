"""The files that a region's operators edit, as first written by ``fedfsd region init``."""

from __future__ import annotations

import json

SETTINGS = """\
# The region {name}: where its files are, and who receives its updates.
# Paths are relative to this file's folder.

name = {name_text}

# The ledger's second copy, on a different disk than this folder. It serves to rebuild the ledger if
# this disk is lost (fedfsd region recover), and to detect at every start an old copy of the ledger,
# in which spent budget would be missing.
mirror = {mirror_text}

# What this region allows at all, whatever a coordinator proposes.
policy = "policy.toml"

# A command of yours, run where a person is needed, with one JSON document on its standard input: its key
# "event" is plan_waits, run_ended, budget_low, mirror_behind or certificate_ends. Empty: none.
on_event = []

[border]
# How this region's gate reaches the coordinator, host:port; empty: the address in the invitation.
coordinator = ""
# An HTTP proxy that opens the connection there (CONNECT), http://host:port or http://user:password@host:port;
# empty: none. It sees the coordinator's address and encrypted bytes.
proxy = {proxy_text}
# The socket between the gate and the runner, which alone reads the data. If they run as two users, as
# they should, it must be in a folder that both may enter: "/run/fedfsd/{name}/gate.sock".
socket = {socket_text}
metrics_port = 0                # Prometheus metrics on loopback; 0: none

[transfer]
# Who receives the updates (the name of the coordinator's key) and what for. Plans are approved for
# exactly these two; a permission to transfer must name the same.
recipient = {recipient_text}    # "fedfsd/coordinator/NAME"
purpose = {purpose_text}    # "training of a motion forecasting model"

# What a record of these transfers needs beyond the ledger (the parties, the legal basis) is in a file of
# its own: fedfsd audit transfers --template prints it.
"""

POLICY = """\
# What the region {name} allows, whatever a coordinator proposes. A plan outside of it is refused before
# any data is read (exit code 13). To be decided by the data officer. fedfsd config schema policy
# explains each key; fedfsd config check FILE --kind policy checks this file.

# Declare these two before the first plan: only plans that state the same are accepted. A coordinator
# is told both, so that nobody has to type them there.
{roster_text:31} # N: training vehicle keys, those without a usable window included
{identity_text:31} # physical: one key is one car; recording: one car in one drive

modes = ["private"]             # a real region accepts no other

# Privacy of one plan. The limit for all plans together is in the grant (fedfsd region grant).
max_epsilon = 10.0              # recomputed by the region itself
max_delta = 1e-3
min_noise_multiplier = 0.5      # noise, in units of one vehicle's largest contribution
max_sample_rate = 1.0           # share of the vehicles drawn in each step
max_grad_norm = 10.0            # a vehicle's largest contribution
max_windows_per_vehicle = 1024

# Size.
max_roster = 10_000_000
max_steps = 100_000
max_rounds = 10_000
max_canary_share = 0.25         # synthetic vehicles per vehicle: they cost no privacy, but time
max_release_bytes = 500_000_000 # of one update
min_witness_size = 1024         # so that anyone can test that noise was added
max_inbound_magnitude = 1e4     # of any number in the model that comes in

# Conduct.
round_seconds = 10.0            # no update leaves earlier than this after its round began: longer than
                                # training takes here, so that its time tells nothing; 0: it can be seen
approve = "by hand"             # or "within policy": plans within policy and grant, without an operator
# Models and tasks of other packages that were reviewed, beside those of fedfsd itself; each as
# {{ name = "...", distribution = "...", version = "...", package_sha256 = "..." }}, the hash of all files of
# the package: fedfsd config pins prints what is installed.
models = []
tasks = []
# Frozen weights of plans that train a part of their model, each as {{ name = "...", sha256 = "..." }}: the
# hash that sha256sum prints of the file. The file itself is for the runner: backbones in train.toml.
backbones = []
"""


TRAIN = """\
# The runner of the region {name}: it alone reads the data, and connects only to the gate's socket.

name = {name_text}

# A table or a folder of tables, as for fedfsd data check.
data_path = {data_text}

device = "auto"                 # or "cpu", "cuda", "cuda:1", ...
# Several processes that train together, one a device (then also format = 2, in the place of device):
# devices = ["cuda:0", "cuda:1"]
backbones = "backbones"         # a folder for the frozen weights (.safetensors) that plans name
engine = "auto"                 # "fast" refuses models for which fedfsd's own gradient engine lacks a layer
socket = {socket_text}
test_only = false               # true: also accept rehearsal plans (their noise key is public); for testing
"""


def settings(
    *,
    name: str,
    mirror: str,
    recipient: str = "",
    purpose: str = "",
    socket: str = "run/gate.sock",
    proxy: str = "",
) -> str:
    """The text of region.toml."""
    quoted = {
        key: json.dumps(text, ensure_ascii=False)
        for key, text in {
            "name_text": name,
            "mirror_text": mirror,
            "recipient_text": recipient,
            "purpose_text": purpose,
            "socket_text": socket,
            "proxy_text": proxy,
        }.items()
    }
    return SETTINGS.format(name=name, **quoted)


def train(*, name: str, data_path: str, socket: str) -> str:
    """The text of train.toml."""
    texts = {"name_text": name, "data_text": data_path, "socket_text": socket}
    return TRAIN.format(
        name=name, **{key: json.dumps(text, ensure_ascii=False) for key, text in texts.items()}
    )


def policy(*, name: str, roster: int | None = None, identity: str | None = None) -> str:
    """The text of policy.toml: the defaults, explained, with what is declared already."""
    return POLICY.format(
        name=name,
        roster_text="# roster = 1000" if roster is None else f"roster = {roster}",
        identity_text='# identity = "recording"' if identity is None else f'identity = "{identity}"',
    )
