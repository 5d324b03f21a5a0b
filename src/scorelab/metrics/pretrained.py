"""Feature spaces of large networks that others have trained: torch-fidelity's Inception, DINOv2 and CLIP.

Their weights are a file: given, or where torch keeps what it has fetched before, or fetched. They see images of any
size, grey ones in three equal channels, and work on the GPU where there is one: on a CPU a few images take a second.
"""

import struct
import warnings
from abc import abstractmethod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.metrics.features import Extractor
from scorelab.metrics.published import Published, hash_of, state

AT_ONCE = 32  # images: enlarged, each takes some hundred megabytes on its way
NOT_OF_ITS_KIND = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)


class Pretrained(Extractor):
    """A network of torch-fidelity's with weights from a file.

    It works in float32, which autocast leaves alone, and always as in evaluation.

    Args:
        published: the file that is taken where none is given, kept where torch keeps what it fetches.
        weights: the file.

    Raises:
        Refusal: for a file of something else; where there is none and it cannot be fetched.
    """

    def __init__(self, published: Published, weights: str | Path | None) -> None:
        super().__init__()
        file = published.file(weights)
        self.hash = hash_of(file)
        try:
            # initial values, which the file replaces, are drawn from nobody's generator
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of formats that are older than the library
                self.net = self.load(file).eval().requires_grad_(False)
        except NOT_OF_ITS_KIND as error:
            told = f"weights={file} is no file of {type(self).__name__}'s"
            change = f"take {published.called}" if weights else "remove it to fetch it again"
            raise Refusal(f"{told}: {change}") from error
        self.name = f"{self.kind()}-{self.hash}"

    @abstractmethod
    def load(self, file: Path) -> nn.Module:
        """Torch-fidelity's extractor with these weights, whose first answer is the features; sets ``num_features``."""

    @abstractmethod
    def kind(self) -> str:
        """What network it is, in a word."""

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """For images of other channels."""
        if len(shape) == 3 and shape[0] not in (1, 3):
            return f"this extractor looks at images of 1 or 3 channels, and the data have {shape[0]}: extractor=auto"
        return super().unfit(shape)

    def features(self, images: Tensor) -> Tensor:
        """Features (N, num_features), float64, of bytes (N, 1 or 3, H, W), where the images are."""
        return self._answers(images, 0)

    def train(self, mode: bool = True) -> "Pretrained":
        """As in evaluation all the same: its normalisation is that of its weights."""
        return super().train(False)

    @torch.no_grad()
    def _answers(self, images: Tensor, which: int) -> Tensor:
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            wanted = "uint8 images (N, 1 or 3, H, W)"
            raise Refusal(f"expected {wanted}, not {images.dtype} {tuple(images.shape)}")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net.to(device)
        found = []
        with torch.autocast(device.type, enabled=False):
            for part in images.split(AT_ONCE):
                found.append(self.net(part.to(device).expand(-1, 3, -1, -1).contiguous())[which].double())
        return torch.cat(found).to(images.device)


class InceptionExtractor(Pretrained):
    """The pool of Inception-v3, 2,048 features, as torch-fidelity has it: the space of published Fréchet distances.

    Heusel et al. 2017, with the weights and the resizing of their TensorFlow graph. Its classes are ImageNet's, 1,008
    logits without their bias: those of the published inception score. Compare with published figures only what has
    their number of samples and their reference.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        super().__init__(Published(URL_INCEPTION_V3, URL_INCEPTION_V3.rpartition("/")[2], "6726825d"), weights)

    def load(self, file: Path) -> nn.Module:
        """Inception from a file of its state."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.num_features = 2048
        state(file)  # torch-fidelity would run what a file holds
        layers = ["2048", "logits_unbiased"]
        found: nn.Module = FeatureExtractorInceptionV3(self.kind(), layers, feature_extractor_weights_path=str(file))
        return found

    def kind(self) -> str:
        """Torch-fidelity's name for it."""
        return "inception-v3-compat"

    def logits(self, images: Tensor) -> Tensor:
        """Logits without bias (N, 1008), float64, of bytes (N, 1 or 3, H, W)."""
        return self._answers(images, 1)


class DinoExtractor(Pretrained):
    """DINOv2's class token, resized and normalised as torch-fidelity does: what ``fd_dino`` compares in.

    Oquab et al. 2024; for judging samples Stein et al. 2023, who resize otherwise: their figures differ somewhat.
    Torch-fidelity itself can only fetch this network, together with the code that builds it; here that code is
    torchvision's (:func:`scorelab.metrics.dino.vision_transformer`), and the weights are a file like any other.

    Args:
        weights: the file; its own sizes are taken.
        model: which file is fetched where none is given, by torch-fidelity's names.

    Raises:
        Refusal: for another model, too.
    """

    models = ("dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14")

    def __init__(self, weights: str | Path | None = None, model: str = "dinov2-vit-l-14") -> None:
        super().__init__(self.published(model), weights)

    @classmethod
    def published(cls, model: str) -> Published:
        """The file of a model."""
        if model not in cls.models:
            raise Refusal(f"model must be one of {', '.join(cls.models)}, not {model}")
        short = model.replace("-vit-", "_vit").replace("-14", "14")
        return Published("facebookresearch/dinov2", f"{short}_pretrain.pth", model=short)

    def load(self, file: Path) -> nn.Module:
        """Torch-fidelity's resizing and normalising about the network of this file."""
        from torch_fidelity.feature_extractor_base import FeatureExtractorBase
        from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

        from scorelab.metrics.dino import vision_transformer

        class Given(FeatureExtractorDinoV2):
            """With a network that is given."""

            def __init__(self, name: str, model: nn.Module) -> None:
                FeatureExtractorBase.__init__(self, name, ["dinov2"])
                self.feature_extractor_internal_dtype, self.model = torch.float32, model

        network: Any = vision_transformer(state(file), FeatureExtractorDinoV2.INPUT_IMAGE_SIZE)
        self.num_features, self._depth = network.hidden_dim, len(network.encoder.layers)
        found: nn.Module = Given("dinov2", network)
        return found

    def kind(self) -> str:
        """Its sizes."""
        return f"dinov2-{self.num_features}x{self._depth}"


class ClipExtractor(Pretrained):
    """The picture side of CLIP (Radford et al. 2021), as torch-fidelity has it.

    Args:
        weights: the file, a TorchScript archive as it is published; its own sizes are taken.
        model: which file is fetched where none is given, by torch-fidelity's names: clip-vit-b-32, clip-rn50 ...

    Raises:
        Refusal: for another model, too.
    """

    def __init__(self, weights: str | Path | None = None, model: str = "clip-vit-b-32") -> None:
        super().__init__(self.published(model), weights)

    @classmethod
    def published(cls, model: str) -> Published:
        """The file of a model."""
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS

        if model not in MODEL_URLS:
            raise Refusal(f"model must be one of {', '.join(MODEL_URLS)}, not {model}")
        whole = MODEL_METADATA[model]["hash"]
        return Published(MODEL_URLS[model], f"{model}-{whole}.pt", whole)

    def load(self, file: Path) -> nn.Module:
        """The picture side of what is in this file."""
        from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

        # which of its models is named decides nothing but what it would fetch
        made: nn.Module = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(file))
        found: Any = made
        self.num_features, self._size = found.model.visual.output_dim, found.resolution
        return made

    def kind(self) -> str:
        """Its sizes."""
        return f"clip-{self.num_features}-{self._size}px"
