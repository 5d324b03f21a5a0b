"""Every choice composes, is checked, and says no more than it must."""

import copy
import inspect
import math
import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from conftest import STEPPED, choices
from exact_cases import normal
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from test_results import part_of

from scorelab.config.build import Experiment, build, sized
from scorelab.config.check import GIVEN, completed
from scorelab.config.choices import KEY, with_choices
from scorelab.data.base import Source, Split
from scorelab.data.module import DataModule
from scorelab.denoisers import Exact, FixedSmall
from scorelab.errors import Refusal, UserError
from scorelab.evaluation import EvaluationContext, EvaluationSettings, run_yardsticks
from scorelab.evaluation.samplers import SamplerComparison
from scorelab.evaluation.samples import SampleYardstick
from scorelab.laws import FiniteSet
from scorelab.losses import Simple, Uniform
from scorelab.metrics.features import NoFeatures
from scorelab.metrics.fidelity import floor_kind
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine
from scorelab.tracking.logger import RunLogger

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SWEEPS = sorted((CONFIGS / "sweep").glob("*.yaml"))
NODES = [
    p
    for p in sorted(CONFIGS.rglob("*.yaml"))
    if p.parent not in (CONFIGS, CONFIGS / "sweep") and "hydra" not in p.parts
]
CHOICES = [
    f"{p.parent.name}={'[' + p.stem + ']' if p.parent.name == 'metrics' else p.stem}"
    for p in NODES
    if "???" not in p.read_text()  # what the person at the keyboard alone can give: a folder of their own
]


@cache
def base(words: tuple[str, ...], name: str) -> DictConfig:
    """What Hydra composes, once for the same words: look at it, do not touch it."""
    at_work = GlobalHydra.instance().is_initialized()
    with nullcontext() if at_work else initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, list(words))


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """What Hydra composes of these words, with those that begin with ++ put in afterwards, as Hydra itself does."""
    found = copy.deepcopy(base(tuple(word for word in overrides if not word.startswith("++")), name))
    with open_dict(found):
        for each in OverridesParser.create().parse_overrides([w for w in overrides if w.startswith("++")]):
            OmegaConf.update(found, each.key_or_group, each.value(), merge=True)
    return with_choices(found, [CONFIGS])


def config(*overrides: str) -> dict:
    return sized(completed(composed("run=test", *overrides)))


def built(*overrides: str) -> Experiment:
    """As an entry builds it: with Hydra at work, whose choices refusals name."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return build(config(*overrides))


@pytest.mark.parametrize("limit", [[], ["++data.limit=20"]], ids=["endless", "finite"])
def test_the_seed_of_a_run_decides_the_order_of_its_data(limit: list[str]) -> None:
    words = ["data=moons", "data.batch_size=20", *limit]
    one, again, other = (next(iter(built(*words, f"seed={seed}").data.train_dataloader()))[0] for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)


NEEDS = {
    "variance=learned": "loss=vlb",  # nothing trains it under the default loss
    "variance=learned_free": "loss=vlb",
    "schedule=jsd": "++loss.space=v",  # the noise says nothing where it ends
    "schedule=linear_zero_snr": "++loss.space=v",
    "model=mlp": "data=moons",  # for points, and the default data are images
    "extractor=mnist": f"++data.source={{_target_: {__name__}.Blank, shape: [1, 28, 28]}}",
    "extractor=cifar": f"++data.source={{_target_: {__name__}.Blank, shape: [3, 32, 32]}}",
}


def together(choice: str) -> list[str]:
    """A choice, and what it cannot be without."""
    return [choice, *([NEEDS[choice]] if choice in NEEDS else [])]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_is_whole(choice: str) -> None:
    whole = config(*together(choice))
    schedule = get_object(whole["schedule"]["_target_"])
    assert whole["schedule"].keys() == {"_target_", *inspect.signature(schedule).parameters}
    if not choice.startswith("schedule="):
        assert whole["schedule"]["num_steps"] == 1000, "a signature's default"
    network = get_object(whole["model"]["_target_"])
    assert all(key in whole["model"] for key in inspect.signature(network).parameters if key not in GIVEN["model"])
    if hasattr(network, "sizes"):
        assert whole["model"]["channels"]  # a size the data decides, filled in
    assert whole["extractor"]["_target_"]


def test_a_key_of_the_data_set_may_be_typed_without_saying_that_it_is_the_sources() -> None:
    long, short_ = config("++data.source.split_seed=3"), config("++data.split_seed=3")
    assert long == short_ and short_["data"]["source"]["split_seed"] == 3
    assert config("++data.source.split_seed=1", "++data.split_seed=3") == long, "what is typed short goes before"
    assert config("data=gaussian", "++data.mean=[0,1]")["data"]["source"]["mean"] == [0, 1]
    assert config("++data.limit=9")["data"]["limit"] == 9


class Free(DataModule):
    """A user's own data, which takes what it likes and has no source."""

    def __init__(self, root: str = "here") -> None: ...


def test_data_of_a_users_own_class_keeps_its_own_keys() -> None:
    node = composed("run=test")
    with open_dict(node):
        node["data"] = {"_target_": f"{__name__}.Free", "root": "there"}
    assert completed(node)["data"] == {"_target_": f"{__name__}.Free", "root": "there"}


@pytest.mark.parametrize(("group", "key"), [(group, key) for group in GIVEN for key in GIVEN[group]])
def test_what_the_program_sets_itself_is_refused_with_what_to_set_instead(group: str, key: str) -> None:
    with pytest.raises(UserError) as caught:
        config(f"++{group}.{key}=1", "logger=wandb")
    assert str(caught.value) == f"{group}.{key} is set by the program: leave it out; {GIVEN[group][key]}"
    whole = config()
    for named in re.findall(r"(?<![/\w])[a-z_]+(?:\.[a-z_]+)+", GIVEN[group][key]):
        node = whole
        for step in named.split("."):
            assert step in node, named
            node = node[step]


def nodes_of(value: object) -> list[dict]:
    if not isinstance(value, dict):
        return []
    return ([value] if "_target_" in value else []) + [n for inner in value.values() for n in nodes_of(inner)]


@pytest.mark.parametrize("path", NODES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_file_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    for node in nodes_of(yaml.safe_load(path.read_text())):
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        free = any(each.kind is each.VAR_KEYWORD for each in parameters.values())  # entries of the user's naming
        for key, value in node.items():
            if key in ("_target_", "defaults", KEY):  # the last two bring other choices
                continue
            assert key in parameters or (free and "_target_" in value), key
            assert key not in parameters or value != parameters[key].default, key


def test_the_matrix_of_objectives_has_a_row_for_each_loss() -> None:
    """Each as its own choice has it, those of the usual order before the others, whatever is said of single ones."""
    rows = config("metrics=[objectives]")["metrics"]["objectives"]
    usual = ["simple", "vlb", "hybrid", "dsm", "likelihood", "esm", "ism", "ssm"]
    order = [*usual, *(name for name in choices("loss") if name not in usual)]
    assert [name for name in rows if name not in ("_target_", "items")] == order
    for name in order:
        assert rows[name] == config(f"loss={name}")["loss"], name
    words = ("metrics=[objectives]", "++metrics.objectives.vlb=null", "++metrics.objectives.dsm.weight=g2")
    changed = config(*words, "++metrics.objectives.mine={_target_: scorelab.losses.Simple, space: v}")
    told = changed["metrics"]["objectives"]
    mine = told.pop("mine")
    assert told == rows | {"vlb": None, "dsm": rows["dsm"] | {"weight": "g2"}} and mine["space"] == "v"
    assert build(changed).yardsticks["objectives"].names == tuple(
        f"objective_{name}" for name in order if name != "vlb"
    )


FETCHED = ("extractor=inception", "extractor=dinov2", "extractor=clip", "metrics=[fd_dino]")  # see test_pretrained
BUILDABLE = [c for c in CHOICES if not c.startswith(("model=unet_cifar", "trainer=gpu", *FETCHED))]


def built_or_skipped(whole: dict) -> Experiment:
    """Of data that has to be fetched nothing is: the test is skipped where this machine does not have it."""
    source = whole["data"]["source"]
    if "download" not in source:
        return build(whole)
    source["download"] = False
    try:
        return build(whole)
    except UserError as error:
        if "is not there" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("choice", BUILDABLE)
def test_every_choice_builds(choice: str) -> None:
    experiment = built_or_skipped(config(*together(choice)))
    assert experiment.module.denoiser.schedule is experiment.module.evaluated.schedule
    assert experiment.module.loss is not None


class Blank(Source):
    """A newcomer's data set, whose shape an argument decides; ``split`` is what each of its splits is."""

    levels, classes = 4, None

    def __init__(self, shape: list[int], split: Split | None = None) -> None:
        self.shape, self.split = tuple(shape), split

    def splits(self) -> dict[str, Split]:
        plain = Split(torch.zeros(8, *self.shape, dtype=torch.uint8), torch.zeros(8).long())
        return dict.fromkeys(("train", "val", "test"), plain if self.split is None else self.split)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([1, 6, 6], {"_target_": "scorelab.metrics.features.Coordinates", "dims": 36}),
        ([3, 32, 32], {"_target_": "scorelab.metrics.features.Thumbnails", "channels": 3, "size": 16}),
    ],
)
def test_data_that_names_no_extractor_is_compared_in_a_plain_one_of_its_shape(shape, expected) -> None:
    words = (f"++data.source={{_target_: {__name__}.Blank, shape: {shape}}}", "++data.extractor=null")
    whole = config(*words, "++model.channels=8")
    assert whole["extractor"] == expected
    experiment = build(whole)
    assert experiment.data.shape == tuple(shape) and experiment.data.extractor.num_features == math.prod(
        value if key != "size" else value**2 for key, value in expected.items() if key != "_target_"
    )


class Long(Blank):
    levels = None

    def splits(self) -> dict[str, Split]:
        return dict.fromkeys(("train", "val", "test"), Split(normal(8, *self.shape, seed=1).float(), NONE))


@pytest.mark.parametrize(
    ("metrics", "refused"),
    [
        ("simple,memorization,exact_gap", None),
        ("simple,fid", "fid"),
        ("prc", "prc"),
        ("kid", "kid"),
        ("budget", "budget"),
    ],
)
def test_points_of_many_coordinates_are_refused_only_to_what_compares_them(metrics: str, refused: str | None) -> None:
    words = [f"++data.source={{_target_: {__name__}.Long, shape: [1500]}}", "++data.extractor=null", "model=mlp"]
    whole = config(*words, "++model.width=8", f"metrics=[{metrics}]")
    if refused is None:
        assert not {"fid", "kid"} & build(whole).yardsticks.keys()
        return
    told = rf"^metrics\.{refused}: this data names no extractor, and 1,500 coordinates .* leave it out of metrics="
    with pytest.raises(UserError, match=told):
        build(whole)


def test_whatever_asks_for_features_says_so_before_anything_is_trained() -> None:
    """Every yardstick of samples that a data set without any space to compare in would fail."""

    class Asked(NoFeatures):
        def features(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(images)
            return super().features(images)

    for name in choices("metrics"):
        if name == "guidance":  # of what takes labels
            continue
        part, asked = part_of(name), list[torch.Tensor]()
        if not isinstance(part, SampleYardstick | SamplerComparison):
            assert not part.of_features, name
            continue
        values, labels = normal(8, 4, seed=1).float(), torch.zeros(8).long()
        denoiser = Exact(Cosine(20), FixedSmall(), FiniteSet(values))
        split = (values, labels, values, labels)
        context = EvaluationContext(
            denoiser, DDIM(2), EvaluationSettings(), *split, Asked(4), Simple(), Uniform(), exact_train=denoiser
        )
        results = run_yardsticks({name: part}, context, lambda line: None)
        assert bool(asked) is part.of_features, name
        assert part.of_features is ("too many to compare" in results.records[name].get("skipped", "")), name


BYTES, NONE = torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.zeros(8).long()


@pytest.mark.parametrize(
    ("split", "told"),
    [
        (Split(BYTES[:0], NONE[:0]), "is empty"),
        (Split(BYTES.float(), NONE), r"holds torch.float32 \(N, 1, 4, 4\)"),
        (Split(BYTES[:, 0], NONE), r"holds torch.uint8 \(N, 4, 4\)"),
        (Split(BYTES + 4, NONE), "holds the level 4, and levels=4"),
        (Split(BYTES, NONE.float()), "needs labels int64"),
        (Split(BYTES, NONE + 1), r"holds labels 1 \.\.\. 1, and classes=None"),
    ],
    ids=["empty", "floats", "shape", "level", "labels", "class"],
)
def test_a_source_that_breaks_its_contract_is_told_which_point(split: Split, told: str) -> None:
    with pytest.raises(Refusal, match=f"^Blank: the train split {told}"):
        DataModule(Blank([1, 4, 4], split))


@pytest.mark.parametrize(
    ("words", "chance", "told"),
    [
        ((), 0.0, "samples' classes drawn, the reference's in proportion"),
        (("++model.conditional=true",), 0.0, "samples have the reference's labels"),
        (("++data.limit=500",), 1 - 500 / 1437, "the reference's with 0.65 of that chance"),
        (("++data.half=B", "++data.limit=359"), 1 - 359 / 1437, "the reference's with 0.75 of that chance"),
        (("++data.half=B", "++data.flip=true"), 1 - 719 / 1437, "the reference's with 0.50 of that chance"),
        (("data=digits_gaussians",), 1.0, "classes drawn, the samples' and the reference's"),
        (("data=moons", "++data.limit=50"), 1.0, "classes drawn, the samples' and the reference's"),
        (("data=checkerboard",), 1.0, "classes drawn, the samples' and the reference's"),
    ],
    ids=str,
)
def test_a_case_knows_how_much_chance_its_class_counts_hold(words: tuple[str, ...], chance: float, told: str) -> None:
    experiment = build(config(*words))
    case = experiment.context(experiment.module.evaluated)
    assert case.chance == pytest.approx(chance)
    assert told in floor_kind(case.conditional, case.chance)
    assert experiment.data.splits["train"].chance == case.chance


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("++model.chanels=3", "model.chanels: no such key; did you mean channels?"),
        ("++optimizer.lr=abc", "optimizer.lr='abc': expected"),
        ("++schedule.num_steps=0", "schedule: num_steps must be at least 1, got 0"),
        ("++schedule.num_steps=many", "schedule.num_steps='many': expected int | None"),
        ("++schedule.num_steps=1.5", "schedule.num_steps=1.5: expected int"),
        ("++trainer.max_steps=-3", "trainer.max_steps must be at least 1, got -3"),
        ("++trainer.max_steps=0", "trainer.max_steps must be at least 1, got 0"),
        ("++optimizer.betas=[1.5,0.9]", "optimizer.betas: Invalid beta parameter at index 0: 1.5"),
        ("++optimizer.foreach=true", "optimizer.foreach: `fused` and `foreach` cannot be `True` together"),
        ("++data.source.split_seed=-1", "data.source: split_seed must lie in 0 ... 4294967295, got -1"),
        ("data=gaussian ++data.source.covariance=[[1,2],[3]]", "data.source: covariance has 2 rows of 2 numbers"),
        ("++schedule.s=1e15", "schedule: s=1000000000000000.0 leaves the curve no room to fall"),
        ("++optimizer.weight_decay=-2", "optimizer.weight_decay: Invalid weight_decay value: -2"),
        ("++trainer.accelerator=abacus", "trainer.accelerator: You selected an invalid accelerator name"),
        ("++trainer.strategy=hope", "trainer.strategy=hope: possible: auto, ddp; the whole network is on each device"),
        ("++trainer.strategy=fsdp", "trainer.strategy=fsdp: possible: auto, ddp"),
        ("++trainer.profiler=x", "trainer.profiler: When passing string value"),
        ("extractor=mnist", "this extractor looks at images (1, 28, 28), and the data are (1, 8, 8): extractor=auto"),
        (
            "data=moons extractor=digits",
            "this extractor compares images, and the data are points: leave extractor= out",
        ),
        ("++model.channels=true", "model.channels=True: expected int"),
        ("++model.multipliers=[true,1]", "model.multipliers=[True, 1]: expected Sequence[int]"),
        ("++model.dropout=true", "model.dropout=True: expected float"),
        ("++trainer.max_steps=1e30", "trainer.max_steps=1e+30: expected int"),
        ("++optimizer.lr=-1", "optimizer.lr: Invalid learning rate: -1"),
        ("++data.batch_size=0", "data: batch_size must be at least 1, got 0"),
        ("++model.dropout=2", "model: dropout must lie in [0, 1), got 2"),
        ("++model.attention=[5]", "model: attention=[5] names heights that do not occur"),
        ("++model.conditioning=film", "model.conditioning='film': expected Literal['scale_shift', 'add']"),
        ("++model.shape=[1,8,8]", "model.shape is set by the program"),
        ("++loss.space=u", "loss.space='u': expected"),
        ("++loss.normalize=maybe", "loss.normalize='maybe': expected bool"),
        ("++metrics.gradient_noise.batches=1", "metrics.gradient_noise: at least 2 batches of 1 image"),
        ("++sampler.steps=0", "sampler: steps must be at least 1, got 0"),
        ("++sampler.eta=2", "sampler: eta must lie in [0, 1], got 2"),
        ("++evaluation.bound=exactly", "evaluation.bound='exactly': expected Literal['sampled', 'exact']"),
        ("++evaluation.tolerance=0", "evaluation: tolerance must be above 0 bits/dim, got 0"),
        ("++callbacks.validaton.every=5", "callbacks.validaton: no such entry; did you mean validation?"),
        ("++callbacks.validation.every=0", "callbacks.validation: every must be at least 1 step, got 0"),
        ("++callbacks.averaging.decay=1", "callbacks.averaging: decay must lie in [0, 1), got 1"),
        ("seed=abc", "seed='abc': expected int"),
        ("++trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1"),
        ("++trainer.gradient_clip_val=nan", "trainer.gradient_clip_val=nan"),
        ("++trainer.gradient_clip_algorithm=value", "possible: norm"),
        ("++data.limit=0", "data: limit must lie in 1 ... 1437, got 0"),
        ("++data.limit=1438", "data: limit must lie in 1 ... 1437, got 1438"),
        ("++data.split_sed=3", "data.split_sed: no such key; did you mean split_seed?"),
        ("++data.batchsize=3", "data.batchsize: no such key; did you mean batch_size?"),
        ("++data.source.limit=3", "data.source.limit: no such key; possible: split_seed"),
        ("++data.split_seed=x", "data.source.split_seed='x': expected int"),
        ("++data.half=C", "data.half='C': expected Optional[Literal['A', 'B']]"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(override: str, told: str) -> None:
    from scorelab.config.trainer import build_trainer

    with pytest.raises(UserError) as caught:
        whole = config(*override.split())
        build(whole)
        build_trainer(whole, Path("nowhere"), RunLogger())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


INCOMPATIBLE = [
    ("loss=vlb ++schedule.num_steps=1", "loss=vlb: the bound needs steps"),
    (
        "loss=vlb schedule=vp variance=learned",
        "loss=vlb: a continuous process has no steps whose variance could be learned",
    ),
    ("loss=hybrid variance=fixed_small", "loss=hybrid: with a fixed variance this loss is loss=simple plus a constant"),
    ("loss=hybrid variance=fixed_large", "loss=hybrid: with a fixed variance this loss is loss=simple plus a constant"),
    ("loss=hybrid schedule=vp", "loss=hybrid: this loss learns the variance of steps: set schedule.num_steps"),
    (
        "loss=hybrid ++schedule.num_steps=null",
        "loss=hybrid: this loss learns the variance of steps: set schedule.num_steps",
    ),
    ("loss=simple variance=learned", "loss=simple: this loss gives a learned variance no gradient"),
    ("loss=dsm variance=learned", "loss=dsm: this loss gives a learned variance no gradient"),
    ("loss=likelihood variance=learned", "loss=likelihood: this loss gives a learned variance no gradient"),
    ("++schedule.num_steps=1 metrics=[vlb] ++loss.normalize=false", "the bound needs schedule.num_steps of 2 or more"),
    ("++schedule.num_steps=1 metrics=[simple]", "set loss.normalize=false"),
    ("schedule=vp ++evaluation.bound=exact", "a continuous schedule has no steps to sum exactly"),
    ("schedule=vp sampler=ddpm", "a continuous schedule has no steps of its own: set sampler.steps"),
    ("schedule=linear ++schedule.num_steps=20", "take more steps, or schedule=cosine"),
    ("schedule=scaled_linear ++schedule.num_steps=20", "take more steps, or schedule=cosine"),
    ("schedule=linear ++schedule.num_steps=null", "schedule.num_steps=None: expected int"),
    ("schedule=sigmoid ++schedule.start=3 ++schedule.end=-3", "start must be below end"),
    ("schedule=vp ++schedule.beta_end=0.05", "0 < beta_start < beta_end is needed"),
    ("timesteps=importance ++timesteps.history=0", "history and bins must be at least 1"),
    ("loss=hybrid ++loss.bound=-1", "bound must be at least 0"),
    ("loss=hybrid ++loss.bound=nan", "bound must be at least 0 and finite"),
    ("++schedule.s=inf", "s must be at least 0 and finite"),
    ("schedule=sigmoid ++schedule.tau=nan", "tau above 0"),
    ("schedule=vp ++schedule.beta_end=inf", "0 < beta_start < beta_end is needed"),
    ("schedule=scaled_linear ++schedule.beta_start=-1", "beta_start and beta_end must be above 0"),
    ("schedule=linear ++schedule.beta_end=0.5", "prediction=eps: the noise says nothing of the data where alpha = 0"),
    ("schedule=linear ++schedule.beta_end=0.5 prediction=v", "loss=simple: this loss is silent where alpha = 0"),
    ("loss=dsm ++loss.weight=sigma", "loss.weight='sigma': expected Literal['one', 'sigma2', 'g2']"),
    ("loss=esm ++loss.references=0", "loss: references must be at least 1, or null for the exact score, got 0"),
    ("loss=ssm ++loss.slices=sphere", "loss.slices='sphere': expected Literal['rademacher', 'gaussian']"),
    ("loss=esm variance=learned", "loss=esm: this loss gives a learned variance no gradient: set variance=fixed_small"),
    ("loss=ssm schedule=linear ++schedule.beta_end=0.5 prediction=v", "loss=ssm: this loss is silent where alpha = 0"),
    (
        "model=exact variance=learned",
        "model=exact: an exact denoiser says nothing of a learned variance: set variance=fixed_small",
    ),
    (
        "model=exact loss=hybrid",
        "model=exact: an exact denoiser says nothing of a learned variance: set variance=fixed_small",
    ),
    ("model=exact data=swiss_roll ++model.conditional=true", "model: a conditional denoiser needs a law with labels"),
    ("model=exact ++model.law=3", "model.law is set by the program: leave it out; data=... decides it"),
    ("data=moons model=unet", "model: this network is for images, and the data are of shape (2,): set model=mlp"),
    ("data=digits model=mlp", "model: this network is for points, and the data are of shape (1, 8, 8): set model=unet"),
    ("data=moons ++model.width=3", "model: width must be even and blocks at least 1, got 3 and 3"),
    ("data=gaussian ++model.conditional=true", "model: model.conditional=true needs data with labels"),
    ("data=gaussian ++data.half=A", "data: endless draws have no halves and no mirror images: set data.limit"),
    ("data=digits_gaussians ++data.flip=true", "data: endless draws have no halves and no mirror images"),
    ("data=gaussian ++data.flip=true", "data: flip mirrors images; this data has none"),
    ("data=moons ++data.limit=0", "data: limit must be at least 1, got 0"),
    ("++data.limit=719 ++data.half=A", "data: limit must lie in 1 ... 718, got 719"),
    ("data=moons ++data.source.std=0", "data.source: std must be above 0 and finite, got 0.0"),
    (
        "metrics=[objectives] ++metrics.objectives.items=1",
        "metrics.objectives: at least 2 items and 1 objective are needed",
    ),
    ("metrics=[objectives] ++metrics.objectives.dsm.weight=w", "metrics.objectives.dsm.weight='w': expected Literal"),
    ("metrics=[objectives] ++metrics.objectives.my._target_=torch.nn.SiLU", "my may only name a class of kind Loss"),
    ("metrics=[distances] ++metrics.distances.floors=1", "metrics.distances: floors must be at least 2, got 1"),
    ("metrics=[budget] ++metrics.budget.steps=0", "metrics.budget: steps must be at least 1, got 0"),
]


@pytest.mark.parametrize(("words", "told"), INCOMPATIBLE)
def test_choices_that_do_not_go_together_are_refused_in_one_sentence(words: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        built(*words.split())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


SILENT, FINITE = ("jsd", "linear_zero_snr"), ("edm", "vlb")  # whose weight on x_0 is finite without signal, too
KINDS = ("cosine", "vp", "ve", "flow", "jsd", "cosine ++schedule.num_steps=null")
PAIRS = [(loss, schedule) for loss in choices("loss") for schedule in KINDS]
PAIRS += [(loss, schedule) for loss in ("simple", "vlb", "hybrid") for schedule in choices("schedule")]


@pytest.mark.parametrize(("loss", "schedule"), dict.fromkeys(PAIRS))
def test_every_objective_builds_under_every_kind_of_schedule_or_says_why_not(loss: str, schedule: str) -> None:
    """Refused are a T-step objective without steps, the noise's error without signal, a schedule that learns by it."""
    whole = config(f"loss={loss}", "++model.channels=8")
    other = config(*f"schedule={schedule}".split())
    whole |= {"schedule": other["schedule"], "prediction": other["prediction"]}
    if schedule in SILENT and loss not in FINITE:
        with pytest.raises(UserError, match=r"alpha = 0|no velocity"):
            build(whole)
        if loss != "simple":
            return
        whole["loss"]["space"] = "v"
    if schedule == "learned" and loss != "vlb":
        with pytest.raises(UserError, match="set loss=vlb"):
            build(whole)
        return
    if loss == "hybrid" and whole["schedule"].get("num_steps") is None:
        with pytest.raises(UserError, match=r"set schedule\.num_steps"):
            build(whole)
        if schedule not in (*STEPPED, "cosine ++schedule.num_steps=null"):
            return
        whole["schedule"]["num_steps"] = 1000
    experiment = build(whole)
    assert experiment.module.normalizer == pytest.approx(experiment.card.normalizer)


def test_a_loss_brings_the_variance_it_needs_and_an_explicit_one_wins() -> None:
    assert config("loss=hybrid")["variance"]["_target_"] == "scorelab.denoisers.Learned"
    assert config("loss=vlb", "variance=learned")["variance"]["_target_"] == "scorelab.denoisers.Learned"
    assert config("loss=hybrid", "variance=fixed_small")["variance"]["_target_"] == "scorelab.denoisers.FixedSmall"


def test_an_objective_is_normalised_unless_told_otherwise() -> None:
    """T/(2 ln 2) expm1 of the falls of lambda, averaged over the grid times with lambda in [-4.8, 6.6]."""
    module = build(config("loss=vlb", "++model.channels=8")).module
    log_snr = module.denoiser.schedule.log_snr(module.denoiser.schedule.grid()[1:])
    weight = 1000 / (2 * math.log(2)) * torch.expm1(log_snr[:-1] - log_snr[1:])
    inside = (log_snr[1:] >= -4.8) & (log_snr[1:] <= 6.6)
    assert module.normalizer == pytest.approx(float(weight[inside].mean()), rel=1e-6)
    assert build(config("loss=vlb", "++loss.normalize=false", "++model.channels=8")).module.normalizer == 1
    assert build(config("loss=simple", "++model.channels=8")).module.normalizer == 1


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_a_named_sweep_composes_and_sweeps_what_exists(path: Path) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        whole = compose("train", [f"sweep={path.stem}"], return_hydra_config=True)
    assert whole.hydra.mode.name == "MULTIRUN"
    params = {key: str(values) for key, values in whole.hydra.sweeper.params.items()}
    swept = {key: values.split(",") for key, values in params.items() if "," in values and values[0] != "["}
    fixed = [f"{key}={value}" for key, value in params.items() if key not in swept]
    for key, values in swept.items():
        for value in values:
            config(*fixed, f"{key}={value}")


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
        "scorelab.app.evaluate.train",
        "no.such.thing",
        "",
    ],
)
def test_a_config_can_only_name_classes_of_ours_and_the_frameworks(target: str) -> None:
    with pytest.raises(UserError, match="_target_"):
        config(f"++loss._target_='{target}'")
    with pytest.raises(UserError, match="_target_"):
        config(f"++model.attention=[{{_target_: '{target}'}}]")


@pytest.mark.parametrize("value", ["[{_target_: os.system}]", "{inner: {_target_: os.system}}", "[[{_target_: 1}]]"])
def test_a_target_where_none_may_stand_is_refused_though_any_value_may(value: str) -> None:
    kept = completed(composed("run=test", "data=moons", "++data.extractor={inner: [1]}"))["data"]["extractor"]
    assert kept == {"inner": [1]}
    with pytest.raises(UserError, match=r"^data\.extractor\._target_ is refused: .* a node of its own"):
        config("data=moons", f"++data.extractor={value}")


def test_a_value_that_looks_like_an_interpolation_stays_text(tmp_path: Path) -> None:
    from scorelab.config.check import instantiate

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


def test_a_missing_value_is_named_by_its_whole_path() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        nested = compose("train", ["run=x", "++extractor.weights=???"])
        top = compose("eval")
    with pytest.raises(UserError, match=r"^extractor\.weights has no value: type extractor\.weights=\.\.\.$"):
        completed(nested)
    with pytest.raises(UserError, match=r"^run has no value: type run=\.\.\.$"):
        completed(top)


@pytest.mark.parametrize("key", ["run", "name", "init_from"])
def test_a_name_that_yaml_reads_as_a_number_is_refused(key: str) -> None:
    whole = composed("run=x")
    whole[key] = 20240105
    with pytest.raises(UserError, match=f"{key}=20240105: expected .* a name stands in quotes"):
        completed(whole)


@pytest.mark.parametrize(
    ("group", "node", "choice"),
    [
        ("loss", {"_target_": "scorelab.losses.VariationalBound", "normalize": False}, "loss=vlb"),
        ("model", {"_target_": "scorelab.networks.UNet", "channels": 32}, "model=unet"),
        (
            "model",
            yaml.safe_load((CONFIGS / "model" / "unet_cifar.yaml").read_text()) | {"dropout": 0.2},
            "model=unet_cifar",
        ),
        ("loss", {"_target_": "mine.Loss"}, "loss._target_=mine.Loss"),
    ],
)
def test_a_node_is_called_by_the_choice_that_is_most_like_it(group: str, node: dict, choice: str) -> None:
    from scorelab.config.refusals import called

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert called(group, node) == choice


USERS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, outputs=1, classes=None, width: int = 3, fault: str = ""):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        if width > 5:
            raise ValueError(f"no network is {width} wide")
        if fault:
            raise {"KeyError": KeyError, "RuntimeError": RuntimeError}[fault]("of my own")

    def forward(self, x, t, label=None):
        return self.layer("no tensor")
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_net.py").write_text(USERS)
    (tmp_path / "users_broken.py").write_text(USERS + "undefined\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_class_refuses_with_a_value_error_and_any_other_error_is_a_fault(users_module: None) -> None:
    words = ["data=moons", "++model._target_=users_net.Net"]
    with pytest.raises(UserError, match=r"^model\.width: no network is 7 wide$"):
        build(config(*words, "++model.width=7"))
    for fault in (KeyError, RuntimeError):
        with pytest.raises(fault, match="of my own"):
            build(config(*words, f"++model.fault={fault.__name__}"))


def test_a_class_of_ours_refuses_with_a_refusal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from scorelab.schedules import Cosine

    monkeypatch.setattr(Cosine, "__init__", lambda self, num_steps=1000: [].index(num_steps))
    with pytest.raises(ValueError, match="is not in list") as caught:
        build(config())
    assert not isinstance(caught.value, UserError)


def test_a_module_that_fails_while_it_is_imported_says_how(users_module: None) -> None:
    with pytest.raises(UserError, match=r"cannot be imported \(NameError: name 'undefined' is not defined\)$"):
        config("data=moons", "++model._target_=users_broken.Net")
    with pytest.raises(UserError, match=r"cannot be imported \(.*has no attribute 'Nett?'|No module named"):
        config("data=moons", "++model._target_=users_net.Nett")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("none")
    with pytest.raises(UserError, match=r"^extractor: weights=.* are none of this classifier's: python scripts/"):
        build(config("extractor=digits", f"++extractor.weights={tmp_path}/w"))
