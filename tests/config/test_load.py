"""Reading files: every wrong input is one ConfigError with its place and a fix."""

from __future__ import annotations

import math
import tomllib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load, set_key, toml_value
from fedfsd.errors import ConfigError
from fedfsd.gate.policy import Policy


def refusal(document: Any, *overrides: str, model: type[BaseModel] = Experiment) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(model, document, overrides=overrides)
    assert caught.value.hint or caught.value.expected
    return caught.value


def leaves(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> field, for every key that holds a value; regions under the name CN."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            found |= leaves(inner[0], f"{prefix}{name}{'.CN' if name == 'regions' else ''}.")
        else:
            found[prefix + name] = field
    return found


KEYS = sorted(leaves())
FREE = {
    "track",
    "model.options",
    "task.options",
    "pretraining.augmentation",
    "server.options",
}  # tables that the model or the strategy checks
TABLES = sorted({key.rpartition(".")[0] for key in KEYS} - FREE)


def test_a_name_is_all_an_experiment_needs():
    found = load(Experiment, {"name": "x"})
    assert found.mode == "private"
    assert found.privacy.target_epsilon == 8.0
    assert load(Experiment, found.model_dump(mode="json")) == found


def test_every_default_may_be_written_out(tmp_path):
    lines = [f"{key} = {value}" for key, value in _values(load(Experiment, {"name": "x"}).model_dump())]
    path = tmp_path / "x.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert load(Experiment, path) == load(Experiment, {"name": "x"})


def _values(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in document.items():
        if isinstance(value, dict):
            found += _values(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((prefix + key, f'"{value}"' if isinstance(value, str) else str(value).lower()))
    return found


@given(st.sampled_from(TABLES), st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True))
def test_any_unknown_key_in_any_table_is_refused_by_its_place(table, word):
    key = f"{table}.{word}" if table else word
    if any(known == key or known.startswith(f"{key}.") for known in (*KEYS, *FREE)) or key == "regions":
        return
    assert refusal({"name": "x"}, f"{key}=1").place == key


@pytest.mark.parametrize("key", [key for key in KEYS if len(key.rpartition(".")[2]) > 4])
def test_a_misspelt_key_brings_the_right_one(key):
    wrong = key[:-1]
    assert (error := refusal({"name": "x"}, f"{wrong}=1")).place == wrong
    assert error.hint == f"did you mean {key.rpartition('.')[2]}?"


def test_a_key_like_none_brings_the_known_ones():
    hint = refusal({"name": "x", "privacy": {"zzz": 1}}).hint
    assert hint is not None
    assert "target_epsilon" in hint
    assert "regions" not in hint


@given(
    st.sampled_from([key for key in KEYS if key not in FREE]),
    st.sampled_from([[{}], {"a": {}}, "\u0000 odd"]),
)
def test_a_value_of_the_wrong_kind_is_refused_at_its_key(key, value):
    field = leaves()[key]
    if isinstance(value, str) and str in (field.annotation, *get_args(field.annotation)):
        return
    document: dict[str, Any] = {"name": "x"}
    set_key(document, key, value)
    assert refusal(document).place.startswith(key.partition(".CN")[0])


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("privacy.target_epsilon=0", "privacy.target_epsilon"),
        ("privacy.target_epsilon=-1", "privacy.target_epsilon"),
        ("privacy.target_epsilon=nan", "privacy.target_epsilon"),
        ("privacy.target_epsilon=inf", "privacy.target_epsilon"),
        ("privacy.target_delta=1", "privacy.target_delta"),
        ("privacy.sample_rate=1.5", "privacy.sample_rate"),
        ("privacy.max_grad_norm=0", "privacy.max_grad_norm"),
        ("training.num_rounds=0", "training.num_rounds"),
        ("training.num_rounds=2.5", "training.num_rounds"),
        ("mode=public", "mode"),
        ("regions.CN.roster=0", "regions.CN.roster"),
        ("model.witness_size=-1", "model.witness_size"),
        ("seed=9223372036854775808", "seed"),
        ('name=""', "name"),
        ("name=../../etc", "name"),
    ],
)
def test_a_value_out_of_range_says_what_is_allowed(override, place):
    error = refusal({"name": "x"}, override)
    assert error.place == place
    assert error.got is not None
    assert error.expected is not None


def test_no_name_no_experiment():
    assert refusal({}).place == "name"


@pytest.mark.parametrize("name", ["", "9x", "a b", "../x", "x" * 33, "a\x1b[2J"])
def test_a_region_is_a_short_name(name):
    assert refusal({"name": "x", "regions": {name: {}}}).place.startswith("regions.")


# --set


@given(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: math.isfinite(x)),
        st.booleans(),
    )
)
def test_set_reads_toml_values(value):
    assert toml_value(str(value).lower()) == value
    assert type(toml_value(str(value).lower())) is type(value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_set_takes_any_other_text_as_it_is(text):
    try:
        expected = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        expected = text
    assert toml_value(text) == expected


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.path=runs/a b.parquet", "runs/a b.parquet"),
        ('data.path="embedded"', "embedded"),
        ("data.path='C:\\drives'", "C:\\drives"),
        (" data.path = here ", "here"),
        ("data.path=a=b", "a=b"),
    ],
)
def test_set_needs_no_quotes(override, value):
    assert load(Experiment, {"name": "x"}, overrides=[override]).data.path == value


def test_set_reaches_lists_tables_and_new_regions():
    found = load(
        Experiment,
        {"name": "x"},
        overrides=["sweep={'seed' = [1, 2]}", "regions.EU.roster=12", "model.options.width=4"],
    )
    assert found.sweep == {"seed": [1, 2]}
    assert found.regions["EU"].roster == 12
    assert found.model.options == {"width": 4}


def test_the_last_set_wins_and_the_source_stays_as_it_was():
    source = {"name": "x", "training": {"num_rounds": 3}}
    found = load(Experiment, source, overrides=["training.num_rounds=4", "training.num_rounds=5"])
    assert found.training.num_rounds == 5
    assert source == {"name": "x", "training": {"num_rounds": 3}}


@pytest.mark.parametrize("override", ["", "=", "=1", "privacy.target_epsilon", "name.first=1", "seed.a.b=1"])
def test_a_set_that_is_none_is_refused(override):
    refusal({"name": "x", "seed": 1}, override)


# files


def test_a_missing_file_is_named(tmp_path):
    error = refusal(tmp_path / "none.toml")
    assert "none.toml" in error.place
    assert error.got == "no such file"


def test_a_folder_and_bytes_are_no_files(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    refusal(tmp_path)
    refusal(tmp_path / "latin.toml")


@pytest.mark.parametrize("text", ["name = ", "name = x", 'name = "x"\nname = "y"', "[privacy", "\x00"])
def test_text_that_is_no_toml_is_named_with_its_place(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    assert "bad.toml" in refusal(path).place


def test_an_error_in_a_file_names_file_and_key(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\n[privcy]\ntarget_epsilon = 2\n', encoding="utf-8")
    error = refusal(path)
    assert error.place == f"{path}: privcy"
    assert error.hint == "did you mean privacy?"


# what a run may not fix


@pytest.mark.parametrize("mode", ["private", "none"])
def test_a_noise_key_is_for_rehearsals(mode):
    error = refusal({"name": "x", "mode": mode, "privacy": {"noise_key": "ab" * 32}})
    assert error.place == "privacy.noise_key"
    assert "ab" * 32 not in str(error)
    load(Experiment, {"name": "x", "mode": "rehearsal", "privacy": {"noise_key": "ab" * 32}})


@pytest.mark.parametrize("key", ["", "ab", "AB" * 32, "g" * 64, "0" * 65])
def test_a_noise_key_is_32_bytes_in_hex(key):
    error = refusal({"name": "x", "mode": "rehearsal", "privacy": {"noise_key": key}})
    assert error.place == "privacy.noise_key"


def test_a_policy_file_is_read_the_same_way(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("max_epsilon = 2\n", encoding="utf-8")
    assert load(Policy, path).max_epsilon == 2
    path.write_text("max_epsilom = 2\n", encoding="utf-8")
    assert refusal(path, model=Policy).hint == "did you mean max_epsilon?"


def test_every_error_of_a_file_is_said_at_once():
    document = {"name": "x", "mode": "secret", "privacy": {"target_epsilon": -1.0}, "traning": {}}
    first = refusal(document)
    places = [one.place for one in (first, *first.others)]
    assert sorted(places) == ["mode", "privacy.target_epsilon", "traning"]
    assert [one["place"] for one in first.document()["others"]] == places[1:]
    assert "others" not in refusal({"name": "x", "traning": {}}).document()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("target_epsilon", "privacy.target_epsilon"),
        ("taget_epsilon", "privacy.target_epsilon"),
        ("privacy.num_rounds", "training.num_rounds"),
        ("privacy.learning_rate", "pretraining.learning_rate or training.learning_rate"),
    ],
)
def test_a_key_of_another_table_is_suggested_with_its_table(key, meant):
    assert refusal({"name": "x"}, f"{key}=4").hint == f"did you mean {meant}?"
