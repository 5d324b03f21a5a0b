"""A stored run outlives the code: it is read by what is used of it, against the classes of today."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SMALL, type_in

from scorelab.config.build import sized
from scorelab.config.check import UserError, checked
from scorelab.config.stored import DENOISER, load_run, of_today
from scorelab.run.identity import first_difference

QUICK = (
    "data=moons",
    "model.width=8",
    "model.blocks=1",
    "model.conditional=true",
    "trainer.max_steps=2",
    "callbacks=minimal",
    "sampler=ddpm",
    "sampler.steps=2",
    "metrics=[budget]",
    "metrics.budget.steps=3",
    "evaluation.samples=20",
    "evaluation.chunk=256",
    "logger=csv",
)
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, for all tests here to copy."""
    folder = tmp_path_factory.mktemp("stored")
    said = type_in(folder, "train", "run=a", *QUICK)
    assert said.status == 0, said.err
    return folder / "logs"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run of two steps in the directory commands are typed in: logs/train/a."""
    shutil.copytree(made, tmp_path / "logs")
    return tmp_path / "logs" / "train" / "a"


def edit(run: Path, change: Edit) -> None:
    """Write the run's config.yaml as another version would have."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def results(run: Path) -> dict[str, Any]:
    (file,) = (run / "eval").glob("*/metrics.json")
    return json.loads(file.read_text())


def without(*keys: str) -> Edit:
    """A config without these dotted keys."""

    def change(config: dict[str, Any]) -> None:
        for key in keys:
            *way, last = key.split(".")
            node = config
            for name in way:
                node = node[name]
            del node[last]

    return change


GAINED = (
    "data.flip",
    "data.source.std",
    "model.dropout",
    "loss.normalize",
    "sampler.clip",
    "optimizer.eps",
    "lr_schedule.floor",
    "trainer.detect_anomaly",
    "callbacks.guard.factor",
    "evaluation.bound",
    "extractor.weights",
    "deterministic",
    "init_from",
)


def known(config: dict[str, Any], key: str) -> bool:
    node: Any = config
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


def test_a_class_that_gains_an_argument_locks_out_no_run(typed, run: Path) -> None:
    """The arguments it has gained are those that an older config.yaml lacks."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    gained = [key for key in GAINED if known(config, key)]
    assert len(gained) >= 9, gained
    edit(run, without(*gained))
    said = typed("train", "run=a", *QUICK)
    assert said.status == 0 and "logs/train/a is finished" in said.out, said.err
    said = typed("eval", "run=logs/train/a", "metrics=[simple]")
    assert said.status == 0, said.err
    assert results(run)["config"]["evaluation"]["bound"] == "sampled"
    assert typed("sample", "run=logs/train/a", "n=2").status == 0


def test_nor_does_a_network_that_gains_a_size_which_the_data_decide() -> None:
    data = {"_target_": "scorelab.data.module.DataModule", "source": {"_target_": "scorelab.data.images.Digits"}}
    model = {"_target_": "scorelab.networks.UNet"}
    present = sized({key: checked(node, key) for key, node in {"data": data, "model": model}.items()})
    assert present["model"]["attention"] is not None
    older = copy.deepcopy(present)
    del older["model"]["attention"]
    assert first_difference(of_today(older), present) is None


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("data.limit=50", "data.limit was None, is now 50"),
        ("init_from=logs/train/b", "init_from was nothing, is now logs/train/b"),
        ("lr_schedule.warmup=1", "lr_schedule.warmup was 100, is now 1"),
    ],
)
def test_one_that_is_not_its_default_now_is_a_difference_all_the_same(typed, run: Path, word: str, told: str) -> None:
    edit(run, without("data.limit", "init_from", "lr_schedule.warmup"))
    said = typed("train", "run=a", *QUICK, word)
    assert said.status == 2 and f"has another configuration: {told}" in said.last


def test_an_argument_that_no_class_takes_any_more_is_named(typed, run: Path) -> None:
    edit(run, lambda config: config["model"].update(gone=5))
    said = typed("train", "run=a", *QUICK)
    assert said.status == 2 and "another configuration: model.gone was 5, is now nothing; choose" in said.last
    for entry in ("eval", "sample"):
        said = typed(entry, "run=logs/train/a")
        assert said.status == 2 and len(said.err.strip().splitlines()) == 1
        told = "logs/train/a/config.yaml is of another version of scorelab: model.gone: no such key; "
        assert said.last.startswith(f"error: {told}")


UNUSED = ("logger", "optimizer", "lr_schedule", "trainer", "callbacks")


def moved(config: dict[str, Any]) -> None:
    """Nothing that only training uses is where it was."""
    for group in UNUSED:
        config[group] = {"_target_": "moved_away.Class", "key": 1}
    config["callbacks"] = {"keep": {"_target_": "moved_away.Checkpointing"}}


def test_what_only_training_uses_may_have_moved_and_is_not_even_imported(
    typed, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, run.parent / "b")
    edit(run, moved)
    edit(run.parent / "b", moved)
    (tmp_path / "moved_away.py").write_text("open('imported', 'w')\nclass Class: pass\nclass Checkpointing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ("metrics=[simple,agreement]", "against=logs/train/b")
    said = typed("eval", "run=logs/train/a", *words)
    assert said.status == 0, said.err
    assert results(run)["metrics"]["test/agreement"] == 0
    assert typed("sample", "run=logs/train/a", "n=2").status == 0
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("entry", "group", "words"),
    [
        ("eval", "metrics", ("metrics=[simple]",)),
        ("eval", "sampler", ("sampler=ddim", "metrics=[simple]")),
        ("sample", "sampler", ("sampler=ddim", "n=2")),
        ("sample", "loss", ("n=2",)),
        ("sample", "metrics", ("n=2",)),
        ("sample", "extractor", ("n=2",)),
    ],
)
def test_a_class_that_is_gone_is_not_missed_where_another_is_chosen_or_none_is_needed(
    typed, run: Path, entry: str, group: str, words: tuple[str, ...]
) -> None:
    gone = {"_target_": "no.such.Class"}
    edit(run, lambda config: config.update({group: {"budget": gone} if group == "metrics" else gone}))
    said = typed(entry, "run=logs/train/a", *words)
    assert said.status == 0, said.err


def test_a_run_is_sampled_from_without_the_features_it_was_compared_in(typed, run: Path) -> None:
    lost = {"_target_": "scorelab.metrics.features.DigitsExtractor", "weights": "/no/such/file"}
    edit(run, lambda config: config["data"].update(extractor=lost))
    edit(run, lambda config: config.update(extractor=lost))
    assert typed("sample", "run=logs/train/a", "n=2").status == 0
    assert typed("eval", "run=logs/train/a", "metrics=[simple]").status == 2, "eval compares in them"


@pytest.mark.parametrize(
    ("entry", "group", "told"),
    [
        ("eval", "schedule", "schedule._target_=no.such.Class: cannot be imported (No module named 'no')"),
        ("sample", "model", "model._target_=no.such.Class: cannot be imported (No module named 'no')"),
        (
            "eval",
            "sampler",
            "sampler._target_=no.such.Class: cannot be imported (No module named 'no'); sampler= chooses anew",
        ),
    ],
)
def test_one_that_is_needed_is_named_with_what_helps(typed, run: Path, entry: str, group: str, told: str) -> None:
    edit(run, lambda config: config[group].update(_target_="no.such.Class"))
    said = typed(entry, "run=logs/train/a")
    assert said.status == 2 and "logs/train/a/config.yaml is of another version" in said.last
    assert said.last.endswith(told)


@pytest.mark.parametrize("group", ["schedule", "sampler"])
def test_a_stored_config_cannot_have_anything_else_made(typed, run: Path, tmp_path: Path, group: str) -> None:
    bad = {"_target_": "torch.utils.collect_env.run", "command": f"touch {tmp_path / 'executed'}"}
    edit(run, lambda config: config.update({group: bad}))
    said = typed("eval", "run=logs/train/a")
    assert said.status == 2 and "is refused" in said.last
    edit(run, lambda config: config[group].update(_target_="scorelab.schedules.Cosine", num_steps="${oc.env:HOME}"))
    said = typed("eval", "run=logs/train/a")
    assert said.status == 2 and not (tmp_path / "executed").exists()


# --- overrides


def test_an_override_is_of_the_runs_own_class_and_not_of_evals_default(typed, run: Path) -> None:
    said = typed("eval", "run=logs/train/a", "metrics.budget.steps=4")
    assert said.status == 0, said.err
    content = results(run)
    assert content["config"]["metrics"]["budget"]["steps"] == 4
    assert content["records"]["budget"]["evaluations_per_sample_of_network"] == 4
    assert content["records"]["budget"]["evaluations_per_sample"] == 2  # the run's own sampler.steps


def test_a_choice_replaces_the_node_with_all_its_keys(typed, run: Path) -> None:
    said = typed("eval", "run=logs/train/a", "sampler=ddim", "sampler.eta=0.5", "metrics.budget=null")
    assert said.status == 0, said.err
    config = results(run)["config"]
    assert config["sampler"]["_target_"] == "scorelab.samplers.DDIM" and config["sampler"]["eta"] == 0.5
    assert config["sampler"]["steps"] != 2 and config["metrics"] == {"budget": None}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sampler.eta=1",), "sampler.eta: no such key; possible: clip, spacing, steps"),
        (("sampler.stps=1",), "sampler.stps: no such key; did you mean steps?"),
        (("sampler=ddim", "sampler.eta=2"), "sampler: eta must lie in [0, 1], got 2"),
        (("metrics.fid.n=1",), "metrics.fid: no such entry; possible: budget"),
        (("metrics=[simple]", "metrics.budget.steps=4"), "metrics.budget: no such entry; possible: simple"),
        (("metrics.budget.items=4",), "metrics.budget.items: no such key; did you mean steps?"),
        (("~metrics.budget",), "~metrics.budget: type group=choice, group.key=value, or metrics.NAME=null"),
        (("+metrics=simple",), "+metrics=simple: type group=choice, group.key=value, or metrics.NAME=null"),
        (("loss=vlb",), "loss belongs to training and is fixed in a stored run"),
        (("optimizer.lr=1",), "optimizer.lr belongs to training and is fixed in a stored run"),
        (("sampler._target_=os.system",), "sampler._target_=os.system is refused"),
        (("checkpoint=foo",), "checkpoint=foo: logs/train/a has no such checkpoint; possible: last, best"),
        (("checkpoint=../checkpoints/last",), "has no such checkpoint; possible: last, best"),
        (("against=nowhere",), "against=nowhere: no such directory"),
        (("against=logs",), "against=logs: not a run's directory (it holds no config.yaml)"),
        (("run=logs/train/a/config.yaml",), "run=logs/train/a/config.yaml: a file; the run's directory is needed"),
    ],
)
def test_what_a_run_does_not_take_is_refused_in_one_line(typed, run: Path, words: tuple[str, ...], told: str) -> None:
    first = () if words[0].startswith("run=") else ("run=logs/train/a",)
    said = typed("eval", *first, *words)
    assert said.status == 2 and len(said.err.strip().splitlines()) == 1
    assert told in said.last


def test_another_class_begins_without_the_keys_of_the_old_one(typed, run: Path) -> None:
    edit(run, lambda config: config.update(sampler={"_target_": "scorelab.samplers.DDIM", "steps": 2, "eta": 0.5}))
    words = ("sampler.steps=3", "sampler._target_=scorelab.samplers.DDPM", "metrics=[simple]")
    said = typed("eval", "run=logs/train/a", *words)
    assert said.status == 0, said.err
    assert results(run)["config"]["sampler"]["steps"] == 3 and "eta" not in results(run)["config"]["sampler"]


def test_a_memory_setting_makes_no_other_evaluation(typed, run: Path) -> None:
    for words in (("evaluation.chunk=200",), ("evaluation.chunk=100", "debug=true")):
        assert typed("eval", "run=logs/train/a", "metrics=[simple]", *words).status == 0
    assert results(run)["config"]["evaluation"]["chunk"] == 100


# --- one line


def absent(file: Path) -> None:
    file.unlink()


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def holding(content: str | bytes) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "config.yaml is empty"),
        (b"a: [", "config.yaml is damaged"),
        (b"[1, 2]", "config.yaml is damaged"),
        (b"\xff\xfe\x00", "config.yaml is damaged"),
        (b"1: 2", "config.yaml is damaged"),
        (b"data: !!python/object/apply:os.system [exit]", "config.yaml is damaged"),
        (b"seed: 0", "config.yaml is damaged, it says nothing of data"),
        (b"data: 3", "config.yaml is damaged, its data is 3"),
        (b"data:", "config.yaml is damaged, its data is None"),
        (b"data: {}", "config.yaml is damaged, its data names no class"),
    ],
)
def test_a_damaged_config_is_named_with_what_helps(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_run(tmp_path, DENOISER)
    assert f"{tmp_path}/{told}" in str(caught.value) and "metrics.json" in str(caught.value)


def config_absent(run: Path) -> None:
    (run / "config.yaml").unlink()


def config_torn(run: Path) -> None:
    (run / "config.yaml").write_text("data: {")


def config_a_folder(run: Path) -> None:
    config_absent(run)
    (run / "config.yaml").mkdir()


def weights_absent(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()


def weights_junk(run: Path) -> None:
    (run / "checkpoints" / "last.ckpt").write_bytes(b"junk")


def weights_a_folder(run: Path) -> None:
    weights_absent(run)
    (run / "checkpoints" / "last.ckpt").mkdir()


DAMAGES = [
    (config_absent, "=logs/train/a: "),
    (config_torn, "logs/train/a/config.yaml is damaged: "),
    (config_a_folder, "logs/train/a/config.yaml is a directory: a file belongs there"),
    (weights_absent, "=logs/train/a: holds no "),
    (weights_junk, "logs/train/a/checkpoints/last.ckpt cannot be read as a checkpoint"),
    (weights_a_folder, "logs/train/a/checkpoints/last.ckpt cannot be read as a checkpoint"),
]
KEYS = ("sample", "against", "init_from")  # all read a run by one function: what each says of its own is seen here
PAIRS = [("eval", *each) for each in DAMAGES] + [(key, *DAMAGES[number]) for key in KEYS for number in (0, 1, 3, 4)]


@pytest.mark.parametrize(("key", "damage", "told"), PAIRS)
def test_a_damaged_run_is_told_in_one_line_that_names_the_file(
    typed, run: Path, key: str, damage: Callable[[Path], None], told: str
) -> None:
    for name in ("best", "previous"):
        (run / "checkpoints" / f"{name}.ckpt").unlink(missing_ok=True)
    shutil.copytree(run, run.parent / "b")
    damage(run)
    words = {
        "against": ("eval", "run=logs/train/b", "against=logs/train/a", "metrics=[agreement]"),
        "init_from": ("train", "run=c", *QUICK, "init_from=logs/train/a"),
    }
    said = typed(*words.get(key, (key, "run=logs/train/a")))
    assert said.status == 2 and len(said.err.strip().splitlines()) == 1, said.err
    assert told in said.last and "overwrite=true" not in said.last


def test_a_checkpoint_that_is_there_is_enough(typed, run: Path) -> None:
    weights_absent(run)
    said = typed("sample", "run=logs/train/a")
    assert said.status == 2 and "checkpoint=last: " in said.last and said.last.endswith("possible: best, previous")
    assert typed("sample", "run=logs/train/a", "checkpoint=best", "n=2").status == 0


@pytest.mark.parametrize(
    ("entry", "words", "told"),
    [
        ("eval", ("evaluation.chunk=100000000000",), "out of memory: lower evaluation.chunk"),
        ("sample", ("n=1000000000000",), "n=1000000000000: 8,000.0 GB are needed, and "),
    ],
)
def test_where_there_is_no_room_it_says_what_to_lower(
    typed, run: Path, entry: str, words: tuple[str, ...], told: str
) -> None:
    said = typed(entry, "run=logs/train/a", *words)
    assert said.status == 2 and f"error: {told}" in said.err.splitlines()[-1]


@pytest.mark.parametrize(("entry", "words"), [("eval", ("metrics=[simple]",)), ("sample", ("n=2",))])
def test_what_stands_where_results_go_is_told(typed, run: Path, entry: str, words: tuple[str, ...]) -> None:
    (run / entry).write_text("")
    said = typed(entry, "run=logs/train/a", *words)
    assert said.status == 2 and f"logs/train/a/{entry}" in said.last and "no directory" in said.last


@pytest.mark.parametrize("content", ["", "[]", '{"status": "finished"}'])
def test_a_damaged_verdict_is_told_in_one_line(typed, run: Path, content: str) -> None:
    (run / "metrics.json").write_text(content)
    said = typed("train", "run=a", *QUICK)
    assert said.status == 2 and len(said.err.strip().splitlines()) == 1
    assert (
        "logs/train/a/metrics.json is damaged" in said.last and "remove it, and the run is evaluated again" in said.last
    )


# --- sampling


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("n=0",), "n=0: a whole number in 1 ... "),
        (("n=many",), "n='many': expected int"),
        (("seed=abc",), "seed='abc': expected int"),
        (("label=2",), "label=2: no such label; possible: 0 ... 1"),
        (("label=-1",), "label=-1: no such label; possible: 0 ... 1"),
        (("label=cat",), "label='cat': expected int"),
        (("evaluation.bound=exact",), "evaluation.bound is fixed in a stored run; possible: sampler, evaluation.chunk"),
        (("evaluation.chunk=0",), "evaluation: chunk must be at least 1, got 0"),
    ],
)
def test_what_sample_does_not_take_is_refused_in_one_line(typed, run: Path, words: tuple[str, ...], told: str) -> None:
    said = typed("sample", "run=logs/train/a", *words)
    assert said.status == 2 and len(said.err.strip().splitlines()) == 1 and told in said.last


def drawn(said: Any, folder: Path) -> np.ndarray:
    assert said.status == 0, said.err
    return np.load(folder / said.out.strip().splitlines()[-1])["arr_0"]


def test_a_label_is_that_of_all_samples_and_without_one_they_take_turns(typed, run: Path, tmp_path: Path) -> None:
    each, zero, one = (
        drawn(typed("sample", "run=logs/train/a", "n=6", *words), tmp_path)
        for words in ((), ("label=0",), ("label=1",))
    )
    assert np.array_equal(each[::2], zero[::2]) and np.array_equal(each[1::2], one[1::2])
    assert not np.array_equal(zero, one)


def test_a_run_without_labels_takes_none(typed, run: Path) -> None:
    edit(run, lambda config: config["model"].update(conditional=False))
    said = typed("sample", "run=logs/train/a", "label=1")
    assert said.status == 2
    assert "label=1: this run was trained without labels; model.conditional=true trains with them" in said.last


def test_a_run_without_yardsticks_is_evaluated_with_none(typed) -> None:
    assert typed("train", "run=a", *SMALL[:-2], "metrics=[]", "logger=none", "trainer.max_steps=2").status == 0
    said = typed("eval", "run=logs/train/a")
    assert said.status == 0, said.last
