"""Extractors whose weights others have published: torch-fidelity's own features, from a file or in one line from none.

The files are of the right form and hold noise: they say that the right numbers are computed, not what they are worth.
"""

import hashlib
import http.server
import json
import math
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL
from test_samples_compared import SPLITS, context
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resized

from scorelab.errors import Refusal
from scorelab.evaluation import Frechet, FrechetDino, InceptionScore
from scorelab.metrics.compared import inception_score, kernel_distance, precision_recall
from scorelab.metrics.features import DigitsExtractor
from scorelab.metrics.fidelity import frechet
from scorelab.metrics.pretrained import ClipExtractor, DinoExtractor, InceptionExtractor
from scorelab.metrics.published import Published
from scorelab.tensors import to_bytes

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
WIDTH, DEPTH, HIDDEN, PATCH, PLACES = 128, 2, 192, 14, 5


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


# --- files of the right form


class Blank(FeatureExtractorInceptionV3):
    """Inception as it is made, whatever the file holds."""

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def inception(files: Path) -> Path:
    torch.save({}, files / "nothing.pth")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Blank("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(files / "nothing.pth"))
        with torch.no_grad():
            net.fc.bias.normal_()
            for weight in (each for each in net.parameters() if each.dim() == 4):
                weight.mul_(6**0.5)  # what is small at the first layer is nothing at the last
    torch.save(net.state_dict(), files / "inception.pth")
    return files / "inception.pth"


def dino_state() -> dict[str, Tensor]:
    """Noise by the names and shapes of Meta's files, in small."""
    block = {"norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,)}
    block |= {"attn.qkv.weight": (3 * WIDTH, WIDTH), "attn.qkv.bias": (3 * WIDTH,), "ls1.gamma": (WIDTH,)}
    block |= {"attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,), "ls2.gamma": (WIDTH,)}
    block |= {"mlp.fc1.weight": (HIDDEN, WIDTH), "mlp.fc1.bias": (HIDDEN,)}
    block |= {"mlp.fc2.weight": (WIDTH, HIDDEN), "mlp.fc2.bias": (WIDTH,)}
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 1 + PLACES**2, WIDTH), "mask_token": (1, WIDTH)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    shapes |= {f"blocks.{k}.{name}": shape for k in range(DEPTH) for name, shape in block.items()}
    shapes |= {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    draws = torch.Generator().manual_seed(2)
    made = {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}
    made = {name: value / math.sqrt(value[0].numel() if value.dim() > 1 else 4) for name, value in made.items()}
    return {name: 4 * value if "qkv" in name else value for name, value in made.items()}  # attention that is not even


@pytest.fixture(scope="module")
def dino(files: Path) -> Path:
    torch.save(dino_state(), files / "dino.pth")
    return files / "dino.pth"


@pytest.fixture(scope="module")
def clip(files: Path) -> Path:
    """An archive of CLIP's picture side, of 64 x 64 pixels in 16 patches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = bare(CLIPVisual(24, 64, 2, 64, 16))
    net.register_parameter("text_projection", nn.Parameter(torch.zeros(5, 24), requires_grad=False))
    torch.jit.script(net).save(files / "clip.pt")
    return files / "clip.pt"


def bare(module: nn.Module) -> nn.Module:
    """The parameters of a module by their names, and nothing that computes."""
    made = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        made.register_parameter(name, nn.Parameter(parameter.detach(), requires_grad=False))
    for name, child in module.named_children():
        made.add_module(name, bare(child))
    return made


# --- features


def test_inception_says_what_torch_fidelity_s_says_with_the_same_file(inception: Path) -> None:
    images = noise(3, 3, 20, 28)
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception)
    )
    features, logits = theirs(images)
    ours = InceptionExtractor(inception)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as while training in lower precision
        found = ours.train().features(images)
    assert found.dtype == torch.float64 and found.std(0).mean() > 0.001
    torch.testing.assert_close(found, features.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.logits(images), logits.double(), rtol=1e-5, atol=1e-6)
    assert ours.classifies and ours.num_features == features.shape[1]
    assert ours.hash == hashlib.sha256(inception.read_bytes()).hexdigest()[:12]
    assert ours.name == f"inception-v3-compat-{ours.hash}"


def dino_by_hand(w: dict[str, Tensor], images: Tensor) -> Tensor:
    """The class token by Meta's formulas, one head at a time."""
    mean, deviation = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (resized(images.float(), size=(224, 224), align_corners=False) / 255 - mean) / deviation
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    square = w["pos_embed"][:, 1:].reshape(1, PLACES, PLACES, WIDTH).permute(0, 3, 1, 2)
    between = F.interpolate(square, scale_factor=((16 + 0.1) / PLACES,) * 2, mode="bicubic")
    x = x + between.permute(0, 2, 3, 1).reshape(1, 256, WIDTH)
    x = torch.cat([(w["cls_token"] + w["pos_embed"][:, :1]).expand(len(x), -1, -1), x], 1)
    for k in range(DEPTH):
        b = {name.split(".", 2)[2]: value for name, value in w.items() if name.startswith(f"blocks.{k}.")}
        y = F.layer_norm(x, (WIDTH,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        q, key, v = (y @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]).chunk(3, 2)
        heads = [slice(start, start + 64) for start in range(0, WIDTH, 64)]
        seen = [(q[..., h] @ key[..., h].transpose(1, 2) / 8).softmax(2) @ v[..., h] for h in heads]
        x = x + b["ls1.gamma"] * (torch.cat(seen, 2) @ b["attn.proj.weight"].T + b["attn.proj.bias"])
        y = F.layer_norm(x, (WIDTH,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        y = F.gelu(y @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"])
        x = x + b["ls2.gamma"] * (y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"])
    return F.layer_norm(x, (WIDTH,), w["norm.weight"], w["norm.bias"], 1e-6)[:, 0]


def test_dinov2_is_the_transformer_of_its_formulas(dino: Path) -> None:
    images, ours = noise(3, 3, 32, 32), DinoExtractor(dino)
    expected = dino_by_hand(dino_state(), images).double()
    torch.testing.assert_close(ours.features(images), expected, rtol=1e-4, atol=3e-5)
    assert expected.std(0).mean() > 0.01, "images differ"
    assert ours.num_features == WIDTH and ours.name == f"dinov2-{WIDTH}x{DEPTH}-{ours.hash}" and not ours.classifies


def test_clip_says_what_torch_fidelity_s_says_with_the_same_file(clip: Path) -> None:
    images, ours = noise(3, 3, 20, 28), ClipExtractor(clip)
    (theirs,) = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(clip))(images)
    torch.testing.assert_close(ours.features(images), theirs.double(), rtol=1e-5, atol=1e-6)
    assert ours.num_features == 24 and ours.name == f"clip-24-64px-{ours.hash}" and theirs.std(0).mean() > 0.001


@pytest.mark.parametrize("kind", [DinoExtractor, ClipExtractor])
def test_grey_is_three_equal_channels_any_size_goes_and_batches_do_not_matter(kind: Any, request: Any) -> None:
    extractor = kind(request.getfixturevalue({DinoExtractor: "dino", ClipExtractor: "clip"}[kind]))
    grey = noise(40, 1, 8, 8)  # more than are enlarged at once
    together = extractor.features(grey)
    torch.testing.assert_close(
        together[30:36], extractor.features(grey[30:36].repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4
    )
    assert extractor.features(noise(1, 3, 230, 300)).shape == (1, extractor.num_features)
    with pytest.raises(Refusal, match=r"uint8 images \(N, 1 or 3, H, W\)"):
        extractor.features(noise(2, 2, 8, 8))


def test_making_one_draws_from_nobody_s_generator(inception: Path, dino: Path, clip: Path) -> None:
    before = torch.get_rng_state()
    for kind, file in ((InceptionExtractor, inception), (DinoExtractor, dino), (ClipExtractor, clip)):
        made: Any = kind(file)
        assert not any(parameter.requires_grad for parameter in made.parameters())
    assert torch.equal(before, torch.get_rng_state())


def test_other_weights_have_another_hash(dino: Path, tmp_path: Path) -> None:
    changed = dino_state()
    changed["norm.bias"][0] += 1
    torch.save(changed, tmp_path / "dino.pth")
    one, other = DinoExtractor(dino), DinoExtractor(tmp_path / "dino.pth")
    assert one.hash != other.hash and one.name != other.name, "kept features of a reference are found by both"


# --- where there are no weights, or others


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and a place of torch's that is empty."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, nobody)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies that it was made with
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["extractor=inception"], "weights-inception-2015-12-05-6726825d.pth"),
        (["extractor=dinov2"], "dinov2_vitl14_pretrain.pth"),
        (["extractor=clip"], "ViT-B-32.pt"),
        (["metrics=[fd_dino]", "metrics.fd_dino.model=dinov2-vit-b-14"], "dinov2_vitb14_pretrain.pth"),
    ],
)
def test_without_weights_and_a_network_one_line_says_which_file_is_needed(
    typed: Any, alone: Path, words: list[str], told: str
) -> None:
    said = typed("train", *SMALL[:-2], "logger=none", *words)
    lines = said.err.strip().splitlines()
    assert said.status == 2 and len(lines) == 1, said.err
    assert lines[0].startswith(f"error: {'extractor' if words[0].startswith('extractor') else 'metrics.fd_dino'}: ")
    assert (
        "cannot be fetched" in lines[0] and "weights=FILE" in lines[0] and told in lines[0] and str(alone) in lines[0]
    )
    assert not list(Path.cwd().glob("logs/train/*")) and not list(alone.glob("*"))


def test_images_of_other_channels_are_refused_before_anything_is_trained(dino: Path) -> None:
    extractor = DinoExtractor(dino)
    assert extractor.unfit((3, 5, 7)) is extractor.unfit((1, 28, 28)) is None
    assert "the data have 2" in str(extractor.unfit((2, 8, 8))) and "are points" in str(extractor.unfit((2,)))


@pytest.mark.parametrize("kind", [InceptionExtractor, DinoExtractor, ClipExtractor])
def test_a_file_of_something_else_is_refused_in_one_sentence(kind: Any, files: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("none")
    (tmp_path / "empty").touch()
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other")
    torch.save([1, 2], tmp_path / "list")
    for name in ("text", "empty", "other", "list"):
        with pytest.raises(Refusal, match=rf"^weights=\S+/{name} is no file of {kind.__name__}'s: take \S+"):
            kind(tmp_path / name)
    for name in ("absent", "."):
        with pytest.raises(Refusal, match="is no file: name a copy of "):
            kind(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("blocks.1.ls2.gamma"),
        lambda w: w.update(register_tokens=torch.zeros(1, 4, WIDTH)),
        lambda w: w.update(pos_embed=w["pos_embed"][:, :-1]),
        lambda w: w.update({"patch_embed.proj.weight": w["patch_embed.proj.weight"][:, :, 1:, 1:]}),
        lambda w: w.update({"norm.bias": w["norm.bias"][:3]}),
    ],
)
def test_a_transformer_of_another_kind_is_refused(change: Any, tmp_path: Path) -> None:
    change(weights := dino_state())
    torch.save(weights, tmp_path / "dino.pth")
    with pytest.raises(Refusal, match="is no file of DinoExtractor's"):
        DinoExtractor(tmp_path / "dino.pth")


def test_what_a_file_would_run_is_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"fc.weight": Runs()}, tmp_path / "w")
    for kind in (InceptionExtractor, DinoExtractor, ClipExtractor):
        with pytest.raises(Refusal, match="is no file of"):
            kind(tmp_path / "w")
    assert not (tmp_path / "ran").exists()


def test_weights_that_torch_keeps_are_found_and_damaged_ones_named(alone: Path, dino: Path) -> None:
    alone.mkdir(parents=True)
    (alone / "dinov2_vitl14_pretrain.pth").write_bytes(dino.read_bytes())
    assert DinoExtractor().hash == DinoExtractor(dino).hash
    (alone / "dinov2_vitl14_pretrain.pth").write_bytes(dino.read_bytes()[:-1000])
    with pytest.raises(Refusal, match=r"vitl14_pretrain.pth is no file of DinoExtractor's: remove it"):
        DinoExtractor()


def test_only_models_that_there_are_can_be_named() -> None:
    with pytest.raises(Refusal, match=r"^model must be one of dinov2-vit-s-14, .*, not dinov2-vit-g-14$"):
        DinoExtractor(model="dinov2-vit-g-14")
    with pytest.raises(Refusal, match=r"^model must be one of clip-rn50, .*, not vit$"):
        ClipExtractor(model="vit")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A folder with one file, for anyone here."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "w.pth").write_bytes(b"weights")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    made = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: Quiet(*given, directory=str(tmp_path / "served"))
    )
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_what_is_fetched_is_kept_and_whole_or_not_at_all(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    for published, reason in (
        (Published(f"{server}/none.pth", "w.pth", begins), r"\(File not found\)"),
        (Published(f"{server}/w.pth", "w.pth", "00000000"), r"\(invalid hash value .*\)"),
    ):
        with pytest.raises(Refusal, match=rf"cannot be fetched {reason}"):
            published.file(None)
        assert not list(published.kept.parent.glob("*"))
    kept = Published(f"{server}/w.pth", "w.pth", begins).file(None)
    assert kept.read_bytes() == b"weights" and kept.is_relative_to(tmp_path)
    assert Published(f"{server}/none.pth", "w.pth").file(None) == kept, "it is not fetched twice"
    assert socket.getdefaulttimeout() is None


# --- fd_dino


def test_fd_dino_is_the_distance_in_its_own_features_whatever_the_extractor(dino: Path) -> None:
    train, test = SPLITS["train"].values[:80], SPLITS["test"].values[:60]
    part = {"train": train, "train_labels": SPLITS["train"].labels[:80], "chance": None}
    judged = context(test, **part)
    found = FrechetDino(str(dino)).run(judged, None)
    expected = frechet(to_bytes(train, 17), to_bytes(test, 17), DinoExtractor(dino))
    assert list(found.metrics) == ["fd_dino", "fd_dino_floor", "fd_dino_excess"]
    assert found.metrics["fd_dino"] == pytest.approx(expected, rel=1e-6)
    plain = Frechet().run(context(test, **part, extractor=DinoExtractor(dino)), None)
    assert found.metrics["fd_dino_floor"] == pytest.approx(plain.metrics["fid_floor"], rel=1e-6)
    assert found.records["extractor_hash"] == DinoExtractor(dino).hash
    assert Frechet().run(judged, None).records["extractor_hash"] == DigitsExtractor().hash, "the context keeps its own"


def test_fd_dino_is_of_images_that_it_can_look_at(dino: Path) -> None:
    judged = context(SPLITS["test"].values)
    assert FrechetDino(str(dino)).inapplicable(judged) is None
    for shape in ((5, 2), (5, 2, 8, 8)):
        judged.train = torch.zeros(shape)
        assert "the data are none" in str(FrechetDino().inapplicable(judged))


def test_a_run_is_judged_by_dinov2_and_clip_from_files(typed: Any, dino: Path, clip: Path) -> None:
    words = [*SMALL, "trainer.max_steps=2", "data.limit=60", "evaluation.samples=20", "run=a"]
    words += ["metrics=[fid,kid,prc,fd_dino]", f"metrics.fd_dino.weights={dino}"]
    said = typed("train", *words, "extractor=clip", f"extractor.weights={clip}")
    assert said.status == 0, said.err
    content = json.loads(Path("logs/train/a/metrics.json").read_text())
    metrics, records = content["metrics"], content["records"]
    assert metrics["test/fd_dino"] > metrics["test/fd_dino_floor"] > 0 and metrics["test/fid"] > 0
    assert metrics["test/fd_dino_excess"] == pytest.approx(metrics["test/fd_dino"] - metrics["test/fd_dino_floor"])
    assert records["fd_dino"]["extractor"] == DinoExtractor(dino).name
    assert records["fid"]["extractor"] == ClipExtractor(clip).name
    assert "DINOv2 distance" in said.out + said.err


# --- torch-fidelity's own figures


class Ours(FeatureExtractorBase):
    """The classifier of digits, as torch-fidelity takes extractors."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.extractor = DigitsExtractor()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What is asked of features and logits."""
        grey = images[:, :1]
        found = {"features": self.extractor.features(grey), "logits": self.extractor.logits(grey)}
        return tuple(found[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Their names."""
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The inception score's is of logits."""
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        """No."""
        return False


class Pictures(Dataset[Tensor]):
    """Images in three channels, as torch-fidelity wants them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_our_figures_are_torch_fidelity_s_of_the_same_images() -> None:
    """Kernel distances draw subsets by another seed: they agree where a subset is all; the others always."""
    n, extractor = 180, DigitsExtractor()
    fake, real = (to_bytes(SPLITS[name].values[:n], 17) for name in ("test", "train"))
    fake = (fake.long() + 20).clamp(max=255).to(torch.uint8)  # not the same law
    register_feature_extractor("digits-of-ours", Ours)
    told = {"isc": True, "fid": True, "kid": True, "prc": True, "kid_subset_size": n, "kid_subsets": 2}
    options = {"cuda": False, "cache": False, "verbose": False, "batch_size": 64, "save_cpu_ram": True}
    theirs = calculate_metrics(
        input1=Pictures(fake), input2=Pictures(real), feature_extractor="digits-of-ours", **told, **options
    )
    mine, reference = extractor.features(fake), extractor.features(real)
    assert frechet(real, fake, extractor) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    kid = kernel_distance(mine, reference, n, 1).value
    assert kid == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6) and kid > 0
    shares = precision_recall(mine, reference)
    assert (shares.precision, shares.recall) == (theirs["precision"], theirs["recall"])
    assert 0 < shares.precision != shares.recall > 0
    score = inception_score(extractor.logits(fake), splits=10)
    assert score.value == pytest.approx(theirs["inception_score_mean"])
    assert score.of_splits == pytest.approx(theirs["inception_score_std"])


def test_the_inception_score_in_splits_is_lower_and_tells_how_they_differ() -> None:
    judged = context(SPLITS["test"].values)
    whole, split = (InceptionScore(splits).run(judged, None) for splits in (1, 10))
    assert split.metrics["is"] < whole.metrics["is"], "what few images say of the classes is nearer to their own"
    assert split.records["splits"] == 10 and split.records["is_of_splits"] > 0 and whole.records["is_of_splits"] is None
    assert "some without any" in str(InceptionScore(10_000).inapplicable(judged))
    for splits in (0, 300):
        with pytest.raises(Refusal, match="splits"):
            inception_score(torch.zeros(20, 10), splits)
