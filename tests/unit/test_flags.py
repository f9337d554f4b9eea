"""Engine flags from config to argv and back, in the forms that vLLM's own parser reads.

Each form in the tables was also given to the real parser of vLLM 0.32.0, which read it as meant.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_spark.errors import ConfigError
from vllm_spark.flags.argv import FlagValue, canonical, from_argv
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.flags.history import KNOWN, Kind


def to_argv(flags: dict[str, FlagValue]) -> list[str]:
    return EngineFlags(flags).argv


GUIDE: dict[str, FlagValue] = {
    "max-model-len": 32768,
    "gpu-memory-utilization": 0.85,
    "max-num-batched-tokens": 16384,
    "max-num-seqs": 64,
    "enable-prefix-caching": True,
    "trust-remote-code": True,
}
GUIDE_ARGV = [
    "--max-model-len=32768",
    "--gpu-memory-utilization=0.85",
    "--max-num-batched-tokens=16384",
    "--max-num-seqs=64",
    "--enable-prefix-caching",
    "--trust-remote-code",
]


def test_the_guides_flags_become_the_guides_arguments_in_their_order() -> None:
    assert to_argv(GUIDE) == GUIDE_ARGV
    assert from_argv(GUIDE_ARGV) == GUIDE


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("max-num-seqs", "max-num-seqs"),
        ("max_num_seqs", "max-num-seqs"),
        ("--max_num_seqs", "max-num-seqs"),
        ("-tp", "tensor-parallel-size"),
        ("-pp", "pipeline-parallel-size"),
        ("-q", "quantization"),
        ("-O", "optimization-level"),
        ("-O.mode", "compilation-config.mode"),
        ("-cc.pass_config.fuse_norm", "compilation-config.pass_config.fuse_norm"),
        ("compilation_config.cudagraph_mode", "compilation-config.cudagraph_mode"),
        ("no-enable-prefix-caching", "enable-prefix-caching"),
        ("disable-prefix-caching", "enable-prefix-caching"),
        ("enable-log-stats", "disable-log-stats"),
        ("disable-log-stats", "disable-log-stats"),
        ("device-memory-utilization", "gpu-memory-utilization"),
        ("brand_new_flag", "brand-new-flag"),
    ],
)
def test_a_flag_has_one_name_however_it_is_spelled(spelling: str, name: str) -> None:
    assert canonical(spelling) == name


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"no-enable-prefix-caching": True}, ["--no-enable-prefix-caching"]),
        ({"no-enable-prefix-caching": False}, ["--enable-prefix-caching"]),
        ({"disable-prefix-caching": True}, ["--no-enable-prefix-caching"]),
        ({"enable-log-stats": False}, ["--disable-log-stats"]),
        ({"no-enable-log-stats": True}, ["--disable-log-stats"]),
        ({"brand-new-flag": False}, ["--no-brand-new-flag"]),
    ],
)
def test_what_turns_a_flag_off_becomes_the_form_that_every_release_reads(
    flags: dict[str, FlagValue], argv: list[str]
) -> None:
    assert to_argv(flags) == argv


def test_false_is_left_out_where_vllm_only_knows_true() -> None:
    assert to_argv({"headless": False, "disable-log-stats": False}) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (32768.0, "32768"),
        (0.85, "0.85"),
        (1.0, "1"),
        (0.5, "0.5"),
        ("32k", "32k"),
        ("0.90", "0.90"),
    ],
)
def test_a_number_is_written_as_it_was_meant(value: FlagValue, text: str) -> None:
    assert to_argv({"brand-new-flag": value}) == [f"--brand-new-flag={text}"]


def test_whole_numbers_inside_json_are_integers_again() -> None:
    config: dict[str, FlagValue] = {
        "method": "ngram",
        "num_speculative_tokens": 3.0,
        "sizes": [1.0],
    }
    assert to_argv({"speculative-config": config}) == [
        '--speculative-config={"method":"ngram","num_speculative_tokens":3,"sizes":[1]}'
    ]


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"lora-modules": ["a=/a", "b=/b"]}, ["--lora-modules", "a=/a", "b=/b"]),
        ({"cudagraph-capture-sizes": [1, 2.0]}, ["--cudagraph-capture-sizes", "1", "2"]),
        ({"allowed-origins": ["*"]}, ['--allowed-origins=["*"]']),
        ({"allowed-origins": []}, ["--allowed-origins=[]"]),
        ({"middleware": ["a.b", "c.d"]}, ["--middleware=a.b", "--middleware=c.d"]),
        ({"lora-modules": [{"name": "a"}]}, ['--lora-modules={"name":"a"}']),
        ({"compilation-config.sizes": [1, 2]}, ["--compilation-config.sizes=[1,2]"]),
    ],
)
def test_a_list_takes_the_form_that_its_flag_wants(
    flags: dict[str, FlagValue], argv: list[str]
) -> None:
    assert to_argv(flags) == argv
    assert from_argv(argv) == flags


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"max-model-len": -1}, ["--max-model-len=-1"]),
        ({"cpu-offload-gb": -0.5}, ["--cpu-offload-gb=-0.5"]),
        ({"chat-template": "--no"}, ["--chat-template=--no"]),
        ({"middleware": ["-a", "b"]}, ["--middleware=-a", "--middleware=b"]),
        ({"served-model-name": ["-a"]}, ["--served-model-name=-a"]),
    ],
)
def test_a_value_with_a_dash_in_front_cannot_be_taken_for_a_flag(
    flags: dict[str, FlagValue], argv: list[str]
) -> None:
    assert to_argv(flags) == argv
    assert from_argv(argv) == flags


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"compilation-config.mode": 3}, ["--compilation-config.mode=3"]),
        ({"compilation-config.debug": False}, ["--compilation-config.debug=false"]),
        ({"compilation-config.backend": "eager"}, ["--compilation-config.backend=eager"]),
        ({"hf-overrides.rope_theta": None}, ["--hf-overrides.rope_theta=null"]),
    ],
)
def test_a_dotted_flag_sets_a_part_of_a_json_value(
    flags: dict[str, FlagValue], argv: list[str]
) -> None:
    assert to_argv(flags) == argv
    assert from_argv(argv) == flags


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ("--max-num-seqs=64", {"max-num-seqs": 64}),
        ("--max_num_seqs 64 -tp 2", {"max-num-seqs": 64, "tensor-parallel-size": 2}),
        ("--max-num-seqs 64 --max-num-seqs 32", {"max-num-seqs": 32}),
        ("--gpu-memory-utilization 1.0", {"gpu-memory-utilization": 1}),
        ("--max-model-len -1", {"max-model-len": -1}),
        ("--revision 0123", {"revision": "0123"}),
        ("--revision 1234", {"revision": "1234"}),
        ("--brand-new-flag 1234", {"brand-new-flag": 1234}),
        ("--brand-new-flag 1.20", {"brand-new-flag": "1.20"}),
        ("--brand-new-flag Infinity", {"brand-new-flag": "Infinity"}),
        ("--brand-new-flag a b", {"brand-new-flag": ["a", "b"]}),
        ("--no-brand-new-flag", {"brand-new-flag": False}),
        ("--no-proxy example.org", {"no-proxy": "example.org"}),
        ("--served-model-name one", {"served-model-name": ["one"]}),
        ('--hf-overrides {"a":1.0}', {"hf-overrides": {"a": 1}}),
        ("-O3", {"optimization-level": 3}),
        ("-O=3", {"optimization-level": 3}),
        ("-O 3", {"optimization-level": 3}),
        ("--api-key=", {"api-key": [""]}),
    ],
)
def test_an_argv_is_read_as_vllm_reads_it(argv: str, flags: dict[str, FlagValue]) -> None:
    found = from_argv(argv.split())
    assert found == flags
    assert [type(value) for value in found.values()] == [type(value) for value in flags.values()]


@pytest.mark.parametrize("argv", ["model", "--enforce-eager true", "--max-num-seqs 1 2"])
def test_an_argument_that_belongs_to_no_flag_is_refused(argv: str) -> None:
    with pytest.raises(ConfigError, match="belongs to no flag"):
        from_argv(argv.split())


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"max-num-seqs": None}, "has no value"),
        ({"served-model-name": []}, "is an empty list"),
        ({"lora-modules": ["a", "-b"]}, "begins with a dash"),
        ({"max num seqs": 64}, "is not a flag's name"),
        ({"max-num-seqs=64": True}, "is not a flag's name"),
        ({"": 1}, "is not a flag's name"),
    ],
)
def test_what_a_command_line_cannot_say_is_refused(flags: dict[str, FlagValue], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        to_argv(flags)


def test_all_that_cannot_be_said_is_refused_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        to_argv({"max-num-seqs": None, "seed": 0, "served-model-name": []})
    assert [problem.where for problem in refusal.value.problems] == [
        "vllm-spark:engine.max-num-seqs",
        "vllm-spark:engine.served-model-name",
    ]


words = st.text(string.ascii_letters + "/_.@", min_size=1).filter(lambda word: word[0].isalpha())
texts = st.text(string.printable + "äπ", max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=4) | st.lists(json_values, max_size=4)
VALUES: dict[Kind, st.SearchStrategy[FlagValue]] = {
    "bool": st.booleans(),
    "store_true": st.just(True),
    "int": st.integers(),
    "human_int": st.integers(),
    "float": numbers,
    "text": texts,
    "list": st.lists(words, min_size=1, max_size=3),
    "append": st.lists(words | words.map("-{}".format), min_size=1, max_size=3),
    "json": json_objects,
}
unknown_values: st.SearchStrategy[FlagValue] = st.one_of(
    st.booleans(),
    st.integers(),
    numbers,
    words,
    st.lists(words, min_size=2, max_size=3),
    st.dictionaries(texts, json_values, max_size=3),
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, FlagValue]:
    """Flags by canonical names, each with a value of its kind, and some that nobody knows."""
    known = draw(st.lists(st.sampled_from(sorted(KNOWN)), unique=True, max_size=6))
    flags = {name: draw(VALUES[KNOWN[name].kind]) for name in known}
    for name in draw(st.lists(st.sampled_from(["new-a", "new-b", "new-c"]), unique=True)):
        flags[name] = draw(unknown_values)
    if draw(st.booleans()):
        flags["some-config.part"] = draw(st.none() | st.booleans() | st.integers() | words)
    return draw(st.permutations(list(flags.items())).map(dict))


@given(configs())
def test_flags_survive_the_way_to_argv_and_back(flags: dict[str, FlagValue]) -> None:
    words_as_json = {"true": True, "false": False, "null": None}
    if (part := flags.get("some-config.part")) in words_as_json and isinstance(part, str):
        flags["some-config.part"] = words_as_json[part]
    back = from_argv(to_argv(flags))
    assert back == flags
    assert list(back) == list(flags)


@given(configs())
def test_every_argument_with_a_dash_in_front_is_a_flag_of_the_config(
    flags: dict[str, FlagValue],
) -> None:
    options = [argument for argument in to_argv(flags) if argument.startswith("-")]
    assert {canonical(option.partition("=")[0]) for option in options} == set(flags)


@given(configs())
def test_spelling_does_not_change_the_argv(flags: dict[str, FlagValue]) -> None:
    respelled: dict[str, FlagValue] = {}
    for name, value in flags.items():
        head, dot, path = name.partition(".")
        if value is False:
            respelled[f"no-{name}" if not dot else name] = bool(not dot)
        else:
            respelled["--" + head.replace("-", "_") + dot + path] = value
    assert to_argv(respelled) == to_argv(flags)


@given(st.dictionaries(st.sampled_from(["new-a", "new-b.c"]), json_values.filter(bool)))
def test_a_normal_form_is_its_own_normal_form(flags: dict[str, FlagValue]) -> None:
    try:
        once = dict(EngineFlags(flags))
    except ConfigError:
        return
    assert dict(EngineFlags(once)) == once
