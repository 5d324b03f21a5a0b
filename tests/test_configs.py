"""Every choice composes, is checked, and says no more than it must."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig

from scorelab.lit.build import build, sized
from scorelab.lit.config import UserError, completed

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NODES = [p for p in sorted(CONFIGS.rglob("*.yaml")) if p.parent != CONFIGS and "hydra" not in p.parts]
CHOICES = [f"{p.parent.name}={'[' + p.stem + ']' if p.parent.name == 'judge' else p.stem}" for p in NODES]


def composed(*overrides: str, name: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, list(overrides))


def config(*overrides: str) -> dict:
    return sized(completed(composed("run=test", *overrides)))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_is_whole(choice: str) -> None:
    whole = config(choice)
    assert whole["schedule"]["num_steps"] == 1000  # a signature's default, filled in
    assert whole["model"]["channels"]  # a size the data decides, filled in
    assert whole["extractor"]["_target_"]


def nodes_of(value: object) -> list[dict]:
    if not isinstance(value, dict):
        return []
    return ([value] if "_target_" in value else []) + [n for inner in value.values() for n in nodes_of(inner)]


@pytest.mark.parametrize("path", NODES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_file_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    for node in nodes_of(yaml.safe_load(path.read_text())):
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        for key, value in node.items():
            if key != "_target_":
                assert key in parameters, key
                assert value != parameters[key].default, key


BUILDABLE = [c for c in CHOICES if not c.startswith(("model=unet_cifar", "trainer=gpu"))]


@pytest.mark.parametrize("choice", BUILDABLE)
def test_every_choice_builds(choice: str) -> None:
    experiment = build(config(choice, "++model.channels=8", "++model.multipliers=[1,1]"))
    assert experiment.module.denoiser.schedule is experiment.module.judged.schedule
    assert experiment.module.loss is not None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("++model.chanels=3", "model.chanels: no such key; did you mean channels?"),
        ("++optimizer.lr=abc", "optimizer.lr='abc': expected"),
        ("++schedule.num_steps=0", "schedule: num_steps must be at least 1, got 0"),
        ("++schedule.num_steps=null", "schedule.num_steps=None: expected int"),
        ("++schedule.num_steps=1.5", "schedule.num_steps=1.5: expected int"),
        ("++trainer.max_steps=-3", "trainer.max_steps must be at least 1, got -3"),
        ("++trainer.max_steps=0", "trainer.max_steps must be at least 1, got 0"),
        ("++optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("++data.batch_size=0", "data: batch_size must be at least 1, got 0"),
        ("++model.dropout=2", "model: dropout must lie in [0, 1), got 2"),
        ("++model.multipliers=[1,2,2,2,2]", "model: images of 8x8 cannot be halved 4 times"),
        ("++model.attention=[5]", "model: attention=[5] names heights that do not occur"),
        ("++model.conditioning=film", "model.conditioning='film': expected Literal['scale_shift', 'add']"),
        ("++model.shape=[1,8,8]", "model.shape is set by the program"),
        ("++loss.space=u", "loss.space='u': expected"),
        ("++sampler.steps=0", "sampler: steps must be at least 1, got 0"),
        ("++sampler.eta=2", "sampler: eta must lie in [0, 1], got 2"),
        ("++metric.bound=exactly", "metric.bound='exactly': expected Literal['sampled', 'exact']"),
        ("++metric.tolerance=0", "metric: tolerance must be above 0 bits/dim, got 0"),
        ("++callbacks.validaton.every=5", "callbacks.validaton: no such entry; did you mean validation?"),
        ("++callbacks.validation.every=0", "callbacks.validation: every must be at least 1 step, got 0"),
        ("++callbacks.averaging.decay=1", "callbacks.averaging: decay must lie in [0, 1), got 1"),
        ("seed=abc", "seed='abc': expected int"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(override: str, told: str) -> None:
    from scorelab.lit.build import build_trainer

    with pytest.raises(UserError) as caught:
        whole = config(override)
        build(whole)
        build_trainer(whole, Path("nowhere"))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_choices_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UserError, match="loss=vlb needs steps"):
        build(config("loss=vlb", "++schedule.num_steps=1"))
    with pytest.raises(UserError, match=r"the bound needs schedule.num_steps of 2 or more"):
        build(config("++schedule.num_steps=1"))
    with pytest.raises(UserError, match="take more steps, or schedule=cosine"):
        build(config("schedule=linear", "++schedule.num_steps=20"))


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.utils.collect_env.run",
        "torchvision.datasets.utils.download_url",
        "scorelab.lit.jobs.train",
        "no.such.thing",
        "",
    ],
)
def test_a_config_can_only_name_classes_of_ours_and_the_frameworks(target: str) -> None:
    with pytest.raises(UserError, match="_target_"):
        config(f"++loss._target_='{target}'")
    with pytest.raises(UserError, match="_target_"):
        config(f"++model.attention=[{{_target_: '{target}'}}]")


def test_a_value_that_looks_like_an_interpolation_stays_text(tmp_path: Path) -> None:
    from scorelab.lit.config import instantiate

    mark = tmp_path / "executed"
    text = f"${{oc.create:{{_target_: torch.utils.collect_env.run, command: 'touch {mark}'}}}}"
    node = {"_target_": "scorelab.metrics.features.DigitsExtractor", "weights": text}
    with pytest.raises(UserError):
        instantiate(completed(DictConfig({"extractor": {**node, "weights": "\\" + text}}))["extractor"], "extractor")
    with pytest.raises(UserError):
        instantiate(node, "extractor")
    assert not mark.exists()


@pytest.mark.parametrize(
    "override",
    [
        "loss._target_=torch.nn.Identity",
        "schedule._target_=scorelab.losses.Simple",
        "callbacks.log._target_=torch.nn.SiLU",
    ],
)
def test_a_class_of_another_kind_is_refused_in_a_group(override: str) -> None:
    with pytest.raises(UserError, match="is refused"):
        config(f"++{override}")


def test_a_class_of_a_user_is_accepted_where_it_is_a_network() -> None:
    assert config("++model._target_=torch.nn.Identity")["model"]["_target_"] == "torch.nn.Identity"
