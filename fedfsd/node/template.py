"""The two files that a region's people edit, as ``fedfsd region init`` first writes them."""

from __future__ import annotations

import json

SETTINGS = """\
# The region {name}: where its things are, and to whom its updates go.
# Paths are relative to this file's folder. On the command line: --set key=value.

name = {name_text}

# The ledger's second copy. It belongs on another disk than this folder: from it the ledger is
# rebuilt (fedfsd region recover) when this disk is lost, and against it an old copy of the ledger,
# which would have forgotten what was spent, is noticed at every start.
mirror = {mirror_text}

# What this region allows at all, whatever a coordinator proposes.
policy = "policy.toml"

[transfer]
# Who receives the updates (the name of the coordinator's key) and what for. Plans are approved for
# exactly these two; a permission to transfer must name the same.
recipient = ""                  # "fedfsd/coordinator/NAME"
purpose = ""                    # "training of a motion forecasting model"

# What a record of these transfers should say beyond the ledger (who the parties are, on what ground)
# stands in a file of its own: clients/deploy/transfer/example.toml explains it.
"""

POLICY = """\
# What the region {name} allows, whatever a coordinator proposes. A plan outside of it is refused before
# any data is read (exit code 13). To be settled by the data officer. fedfsd config schema policy
# explains each key; fedfsd config check FILE --kind policy checks this file.

# Declare these two before the first plan: only plans that state the same are taken.
# roster = 1000                 # N: training vehicle keys, those without a usable window included
# identity = "recording"        # physical: one key is one car; recording: one car in one drive

modes = ["private"]             # a real region takes no other

# Privacy of one plan. What all plans together may cost stands in the grant (fedfsd region grant).
max_epsilon = 10.0              # computed again by the region itself
max_delta = 1e-3
min_noise_multiplier = 0.5      # noise, in units of one vehicle's largest contribution
max_sample_rate = 1.0           # share of the vehicles drawn in each step
max_grad_norm = 10.0            # a vehicle's largest contribution
max_windows_per_vehicle = 1024

# Size.
max_roster = 10_000_000
max_steps = 100_000
max_rounds = 10_000
max_release_bytes = 500_000_000 # of one update
min_witness_size = 1024         # so that anyone can test that noise was added
max_inbound_magnitude = 1e4     # of any number in the model that comes in

# Conduct.
round_seconds = 0.0             # no update leaves earlier than this after its round began
approve = "by hand"             # or "within policy": plans that fit policy and grant, without a person
# Models of other packages that were reviewed, beside those of fedfsd itself; each as
# {{ name = "...", distribution = "...", version = "...", sha256 = "..." }}, the hash of its source file.
models = []
"""


def settings(*, name: str, mirror: str) -> str:
    """The text of region.toml."""
    quoted = json.dumps(mirror, ensure_ascii=False)
    return SETTINGS.format(name=name, name_text=json.dumps(name), mirror_text=quoted)


def policy(*, name: str) -> str:
    """The text of policy.toml: the defaults, said in words."""
    return POLICY.format(name=name)
