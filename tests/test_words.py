"""What is typed, and what Hydra is given to read: names, flags, wherever they stand."""

import random
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from scorelab.app.words import FLAGS, Line, value_of
from scorelab.errors import UserError

LOOKS_LIKE_MORE = (
    *("2024_01_05", "1e3", "007", "0x10", "1_000", "12", "-3", ".5", "inf", "NaN", "true", "False", "None", "Null"),
    *("a=b", "a,b", "a#b", "f(x)", "it's", "~a", "a ~b", "träume/ä", "a[1]", "{a:1}", "a:b", "a b", "!", "&", "a\\b"),
    *('a"b', "a\\", "a\\'", "\\\\x", "choice(1)", "range(3)", "", " a", "a/../b", "?*", "@x", "a%20b", "'a", 'b"'),
)


def read(word: str, name: str = "eval") -> object:
    """What Hydra's parser makes of a word that was typed alone."""
    (given,) = Line.typed([word]).for_hydra(name).words
    return OverridesParser.create().parse_override(given).value()


@pytest.mark.parametrize("name", LOOKS_LIKE_MORE)
@pytest.mark.parametrize("key", ["run", "init_from"])
def test_a_name_is_what_was_typed(key: str, name: str) -> None:
    assert read(f"{key}={name}") == name
    assert read(f"++{key}={name}") == name


@pytest.mark.parametrize("name", LOOKS_LIKE_MORE)
@pytest.mark.parametrize("key", ["data.path", "data.source.root", "data.cache"])
def test_a_place_of_data_is_what_was_typed_and_may_be_null(key: str, name: str) -> None:
    (given,) = Line.typed([f"{key}={name}"]).for_hydra("train").words
    assert given.startswith(f"++{key}=") and OverridesParser.create().parse_override(given).value() == name
    assert read(f"{key}=null", "train") is None


def test_places_of_data_are_swept() -> None:
    (word,) = Line.typed(["-m", "data.path=a b,/c/é"]).for_hydra("train").words
    jobs = list(OverridesParser.create().parse_override(word).sweep_string_iterator())
    assert [OverridesParser.create().parse_override(f"a={job}").value() for job in jobs] == ["a b", "/c/é"]


def test_any_name_is_what_was_typed() -> None:
    draw = random.Random(0)
    for _ in range(500):
        name = "".join(draw.choices("a0_.e-/\\'\"=,#()[]{}:~ é", k=draw.randint(1, 8)))
        if name[0] not in "'\"~":
            assert read(f"run={name}") == name, name


@pytest.mark.parametrize("name", LOOKS_LIKE_MORE)
def test_hydras_quoted_form_is_taken_too(name: str) -> None:
    for quote in Quote:
        assert read(f"run={QuotedString(name, quote).with_quotes()}") == name


@pytest.mark.parametrize(("entry", "key"), [("train", "name"), ("train", "init_from"), ("eval", "against")])
def test_null_is_nothing_where_there_may_be_nothing_and_a_name_elsewhere(entry: str, key: str) -> None:
    assert read(f"{key}=null", entry) is None
    assert read(f"{key}='null'", entry) == "null"
    assert read("run=null", "train") == "null"


def test_a_tilde_that_the_shell_left_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read("run=~/a=1") == f"{tmp_path}/a=1"
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "mine").mkdir()
    assert read("run=~/mine") == "~/mine"


def test_a_swept_name_is_swept_and_each_is_what_was_typed() -> None:
    (word,) = Line.typed(["-m", """init_from=1e3,a/2024_01,null,"x,y", 'true'"""]).for_hydra("train").words
    parsed = OverridesParser.create().parse_override(word)
    assert parsed.is_sweep_override()
    jobs = [OverridesParser.create().parse_override(f"init_from={each}") for each in parsed.sweep_string_iterator()]
    assert [job.value() for job in jobs] == ["1e3", "a/2024_01", None, "x,y", "true"]
    assert [value_of(job.input_line or "") for job in jobs] == ["1e3", "a/2024_01", "null", "x,y", "true"]


def test_a_dotted_key_may_be_added_and_hydras_own_keys_may_not() -> None:
    line = Line.typed(["model.dropout=0.1", "hydra.verbose=true", "loss=vlb", "++a.b=1", "~callbacks.grid"])
    assert line.for_hydra("train").words == [
        "++model.dropout=0.1",
        "hydra.verbose=true",
        "loss=vlb",
        "++a.b=1",
        "~callbacks.grid",
    ]


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["-m", "seed=0,1"], ["--multirun", "seed=0,1"]),
        (["seed=0,1", "-m", "loss=vlb"], ["--multirun", "seed=0,1", "loss=vlb"]),
        (["--multi", "seed=0,1"], ["--multirun", "seed=0,1"]),
        (["loss=vlb", "-c", "job", "seed=1"], ["--cfg=job", "loss=vlb", "seed=1"]),
        (["--cfg=job", "--resolve", "-p", "loss"], ["--cfg=job", "--resolve", "--package=loss"]),
        (["-i"], ["--info=all"]),
        (["--info", "loss=vlb"], ["--info=all", "loss=vlb"]),
        (["--info", "defaults", "loss=vlb"], ["--info=defaults", "loss=vlb"]),
        (["-h"], ["--help"]),
        (["-sc", "query=bash"], ["--shell-completion", "query=bash"]),
        (["-m", "-m", "seed=1,2"], ["--multirun", "seed=1,2"]),
    ],
)
def test_flags_are_understood_however_they_are_written(typed: list[str], given: list[str]) -> None:
    assert Line.typed(typed).for_hydra("train").argv() == given


def test_a_directory_of_choices_is_on_the_search_path_of_every_job(tmp_path: Path) -> None:
    folder = tmp_path / "my own, 1"
    folder.mkdir()
    for typed in (["--config-dir", str(folder)], [f"--config-dir={folder}"], ["-cd", str(folder)]):
        line = Line.typed(["-m", *typed, "seed=1,2"]).for_hydra("train")
        assert line.several and line.flags == {"--multirun": ""}
        assert OverridesParser.create().parse_override(line.words[-1]).value() == [f"file://{folder}"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--optimizer.lr=1e-3"], "--optimizer.lr=1e-3: keys stand without dashes: type optimizer.lr=1e-3"),
        (["--run=mine"], "type run=mine"),
        (["-seed=3"], "type seed=3"),
        (["--loss", "vlb"], "--loss vlb: keys stand without dashes: type loss=vlb"),
        (["--verbose"], "--verbose: no such flag; "),
        (["--config-name=train", "-m", "seed=0,1"], "--config-name: the program composes its own configuration"),
        (["-cp", "x"], "-cp: the program composes its own configuration"),
        (["--con", "x"], "--con: --config-dir or --config-path or --config-name?"),
        (["-r"], "-r: one run is what is done without -m"),
        (["--experimental-rerun", "x"], "--experimental-rerun: the same command again goes on"),
        (["--cfg"], "--cfg: type --cfg=job|hydra|all"),
        (["--cfg", "jobs"], "type --cfg=job|hydra|all"),
        (["--cfg", "job", "-m"], "--cfg and --info show a single run"),
        (["-m", "-i"], "--cfg and --info show a single run"),
        (["--cfg", "job", "--info"], "--cfg and --info: one at a time"),
        (["--resolve"], "--resolve belongs to --cfg"),
        (["--package", "loss"], "--package belongs to --cfg"),
        (["--config-dir=/no/where"], "--config-dir=/no/where: no such directory"),
        (["--config-dir=/", "hydra.searchpath=[x]"], "say the same: type one of them"),
        (["--help=3"], "type help=3"),
    ],
)
def test_a_flag_that_means_nothing_here_is_refused_in_one_line(typed: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        Line.typed(typed)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_every_flag_of_hydra_is_known() -> None:
    from hydra._internal.utils import get_args_parser

    known = {flag: known.short for flag, known in FLAGS.items()}
    for action in get_args_parser()._actions:
        if action.option_strings:
            flag = next(each for each in action.option_strings if each.startswith("--"))
            assert known.pop(flag) in (None, *action.option_strings)
    assert not known


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["-m", "loss=simple,vlb"], True),
        (["--multirun", "loss=simple"], True),
        (["sweep=fair"], True),
        (["sweep=fair", "--config-dir=/"], True),
        (["loss=simple"], False),
        (["sweep=fair", "--cfg", "job"], False),
        (["-m", "seed=1,2", "--help"], False),
        (["sweep=null"], False),
    ],
)
def test_a_sweep_is_asked_for_by_a_flag_or_by_name(words: list[str], asked: bool) -> None:
    line = Line.typed(words)
    assert (line.several and not line.shows) is asked
