"""A trained model together with all it needs to be used: physical units in, physical units out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch_geometric.data import Data

from flare_geo import __version__
from flare_geo.files import write_aside
from flare_geo.nn.flare import Flare
from flare_geo.nn.model import PointModel
from flare_geo.nn.scaler import Scaler
from flare_geo.provenance import provenance

FORMAT = 1
MODELS: dict[str, type[PointModel]] = {"Flare": Flare}
WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Field(NamedTuple):
    """One channel of an input or output: its place in `Data`, its name, its unit."""

    field: str
    name: str
    unit: str

    @property
    def label(self) -> str:
        """Name and unit, as in "pressure [Pa]"; the unit "1" is none."""
        return self.name if self.unit == "1" else f"{self.name} [{self.unit}]"


class Surrogate(nn.Module):
    """Batch in, physical units out.

    The input channels are the listed fields of the batch side by side, standardised; the model's
    output is brought back to physical units. Both scalers are buffers and travel with the weights.

    Args:
        model: :class:`Flare`, or any module with the `forward` of :class:`PointModel`.
        inputs: the input channels in order; channels of one field stand together.
        outputs: the output channels in order.
        input_scaler: statistics of the inputs; identity if None.
        output_scaler: statistics of the outputs; identity if None.
        info: what else to keep in `config.json`; a loaded surrogate keeps the provenance it had.

    Shapes:
        - **batch:** a `Data` or `Batch` with the fields of `inputs`, each `[N, c]`
        - **returns** `[N, out]` in physical units

    Example:
        >>> inputs = [Field("pos", "x", "m"), Field("pos", "y", "m")]
        >>> surrogate = Surrogate(Flare(2, 1), inputs, [Field("y", "pressure", "Pa")])
        >>> surrogate(Data(pos=torch.rand(500, 2))).shape
        torch.Size([500, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Field],
        outputs: Sequence[Field],
        input_scaler: Scaler | None = None,
        output_scaler: Scaler | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.inputs = [Field(*f) for f in inputs]
        self.outputs = [Field(*f) for f in outputs]
        self.info = info or {}
        self.model = model
        self.input_scaler = input_scaler or Scaler.identity(len(inputs))
        self.output_scaler = output_scaler or Scaler.identity(len(outputs))
        for what, scaler, fields in (
            ("input", self.input_scaler, inputs),
            ("output", self.output_scaler, outputs),
        ):
            if scaler.mean.numel() != len(fields):
                raise ValueError(
                    f"{what}_scaler has {scaler.mean.numel()} channels, but there are "
                    f"{len(fields)} {what} channels"
                )

    def forward(self, batch: Data) -> Tensor:
        """Predict at every point of every cloud: `[N, out]` in physical units."""
        return self._predict(self.assemble(batch), batch.get("ptr"))

    def _predict(self, x: Tensor, ptr: Tensor | None) -> Tensor:
        y: Tensor = self.model(self.input_scaler(x), ptr)
        return self.output_scaler.inverse(y)

    def assemble(self, batch: Data) -> Tensor:
        """`[N, in]`: the input fields of the batch side by side.

        Raises:
            ValueError: if a field is missing or has another number of channels than the surrogate
                was trained with.
        """
        counts: dict[str, int] = {}
        for channel in self.inputs:
            counts[channel.field] = counts.get(channel.field, 0) + 1
        parts = []
        for field, count in counts.items():
            value = batch.get(field)
            got = "no such field" if value is None else f"{list(value.shape)}"
            if value is None or value.ndim != 2 or value.shape[1] != count:
                names = ", ".join(c.name for c in self.inputs if c.field == field)
                raise ValueError(
                    f"the surrogate reads '{field}' with {count} channels ({names}), got {got}"
                )
            parts.append(value)
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def predict(self, data: Data) -> Data:
        """A copy of `data` with the prediction `pred [N, out]` in physical units, on the CPU.

        Runs on the device of the weights, in evaluation mode.

        Raises:
            ValueError: if an input is missing, of another width, or not finite.
        """
        device = self.input_scaler.mean.device
        x, ptr = self.assemble(data), data.get("ptr")
        if not torch.isfinite(x).all():
            row, column = torch.nonzero(~torch.isfinite(x))[0].tolist()
            channel = self.inputs[column]
            raise ValueError(
                f"input '{channel.field}' ({channel.name}) is not finite at point {row}; "
                "remove or repair such points first"
            )
        training = self.training
        self.eval()
        try:
            pred = self._predict(x.to(device), None if ptr is None else ptr.to(device))
        finally:
            self.train(training)
        result = data.clone().cpu()
        result.pred = pred.cpu()
        return result

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` into `folder`, aside first, then renamed.

        Raises:
            OSError: if the disk is full; a former checkpoint in the folder stays whole.
        """
        folder = Path(folder)
        config = {
            "format": FORMAT,
            "provenance": provenance(self.input_scaler.mean.device),
            "architecture": {
                "class": type(self.model).__name__,
                "arguments": getattr(self.model, "config", None),
            },
            "inputs": [f._asdict() for f in self.inputs],
            "outputs": [f._asdict() for f in self.outputs],
            **self.info,
        }
        weights = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        with write_aside(folder / WEIGHTS) as w, write_aside(folder / CONFIG) as c:
            w.write_bytes(save(weights))  # a full disk is an OSError this way
            c.write_text(json.dumps(config, indent=2) + "\n")
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, model: nn.Module | None = None) -> Self:
        """The surrogate that was saved in `folder`. Nothing in the folder is run as code.

        Args:
            folder: a local folder with `model.safetensors` and `config.json`.
            model: an instance of your own class, when the checkpoint holds one.

        Raises:
            FileNotFoundError: if there is no checkpoint in the folder.
            ValueError: if the checkpoint is damaged, newer than this package, or holds weights of
                other shapes than the model.
        """
        folder = Path(folder)
        for name in (WEIGHTS, CONFIG):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"no checkpoint in {folder}: it has no {name}")
        try:
            config = json.loads((folder / CONFIG).read_text())
            weights = load_file(folder / WEIGHTS)
        except (json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"the checkpoint in {folder} is damaged: {error}") from error
        if config.get("format") != FORMAT:
            raise ValueError(
                f"the checkpoint in {folder} has format {config.get('format')}, "
                f"flare_geo {__version__} reads format {FORMAT}"
            )
        architecture = config.pop("architecture")
        if model is None:
            if architecture["class"] not in MODELS or architecture["arguments"] is None:
                raise ValueError(
                    f"the checkpoint in {folder} holds a model of class '{architecture['class']}', "
                    f"which is not one of {', '.join(MODELS)}: pass model=..."
                )
            model = MODELS[architecture["class"]](**architecture["arguments"])
        surrogate = cls(
            model,
            [Field(**f) for f in config.pop("inputs")],
            [Field(**f) for f in config.pop("outputs")],
            info={k: v for k, v in config.items() if k != "format"},
        )
        try:
            surrogate.load_state_dict(weights)
        except RuntimeError as error:
            line = str(error).splitlines()[1].strip()
            raise ValueError(
                f"the checkpoint in {folder} does not fit its model: {line}"
            ) from error
        return surrogate.eval()
