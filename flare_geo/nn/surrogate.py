"""A trained model together with all it needs to be used: physical units in, physical units out."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from flare_geo.arguments import as_json
from flare_geo.nn.checkpoint import load_weights, read_checkpoint, write_checkpoint
from flare_geo.nn.features import Features
from flare_geo.nn.model import BlockModel
from flare_geo.nn.models import MODELS
from flare_geo.nn.scaler import Scaler
from flare_geo.pyg import Data

if TYPE_CHECKING:
    from flare_geo.nn.streaming import States


class Field(NamedTuple):
    """One channel of an input or output: its place in `Data`, its name, its unit."""

    field: str
    name: str
    unit: str

    @property
    def label(self) -> str:
        """Name and unit, as in "pressure [Pa]"; the unit "1" is none."""
        return self.name if self.unit == "1" else f"{self.name} [{self.unit}]"


def _vector(channels: Sequence[Field]) -> tuple[str, int]:
    """Name of the field that the first channel, or the first two or three, make up; how many."""
    for ends in ("xyz", "xy"):
        names = [channel.name for channel in channels[: len(ends)]]
        stem, joint = names[0][:-2], names[0][-2:-1]
        if stem and joint in ("_", " ") and names == [f"{stem}{joint}{end}" for end in ends]:
            return stem, len(ends)
    return channels[0].name, 1


def _offsets(data: Data, x: Tensor) -> Tensor:
    """`[B+1]` of the clouds of a batch; of a `Data`, one cloud."""
    ptr: Tensor | None = data.get("ptr")
    return torch.tensor([0, len(x)]) if ptr is None else ptr


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
        >>> from flare_geo.nn import Flare
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

    def predict(
        self,
        data: Any,
        chunk_size: int | None = None,
        *,
        given: Mapping[str, float] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Any:
        """A copy of `data` with the prediction in physical units, on the CPU.

        Runs on the device of the weights, in evaluation mode.

        Args:
            data: a `Data` or `Batch` as the data set gives them, or a mesh of pyvista, meshio or
                trimesh: inputs are then derived and transformed as they were for training.
            chunk_size: points that the device holds at a time, for clouds larger than its memory;
                all if None. The answer is the same to rounding.
            given: inputs of a mesh that are the same on all its points, by name.
            progress: with a `chunk_size`, told after each chunk which share of the work is done.

        Returns:
            A `Data` with `pred [N, out]`; or the mesh, its points, cells and arrays as they were,
            with the fields of :meth:`fields_of` added.

        Raises:
            ValueError: if an input is missing, of another width, or not finite; if `chunk_size` is
                not positive, or the model cannot be cut.

        Warns:
            UserWarning: if an input of a mesh lies outside the training data; says which and by
                how much.
        """
        if isinstance(data, Data):
            return self._predict_case(data, chunk_size, progress)
        from flare_geo.mesh import add_fields

        pred = self.predict_case(self.case_of(data, given), chunk_size, progress=progress)
        return add_fields(data, self.fields_of(pred, data), at=self.recipe["at"])

    def predict_case(
        self,
        case: Data,
        chunk_size: int | None = None,
        *,
        states: "States | None" = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """The prediction `[N, out]` for a case of :meth:`case_of`, its transform undone.

        Args:
            case: the points.
            chunk_size: see :meth:`predict`.
            states: of :meth:`encode`, where the points only listen to those of another case.
            progress: see :meth:`predict`.
        """
        from flare_geo.transforms import undo

        if states is None:
            predicted = self._predict_case(case, chunk_size, progress)
        else:
            predicted = self.answer(case, states)
        transform = self._transform
        pred: Tensor = (undo(transform, predicted) if transform else predicted).pred
        return pred

    def case_of(self, mesh: Any, given: Mapping[str, float] | None = None) -> Data:
        """The case that a mesh is for this surrogate, transformed as for training.

        Raises:
            ValueError: an input is neither on the mesh nor among `given`; says what there is.

        Warns:
            UserWarning: as :meth:`predict`.
        """
        from flare_geo.mesh import case_of_mesh

        case = case_of_mesh(mesh, self.recipe, given)
        if transform := self._transform:
            case = transform(case)
        for warning in self.far_out(case):
            warnings.warn(warning, stacklevel=2)
        return case

    def far_out(self, data: Data) -> list[str]:
        """Inputs that leave the range of the training data by more than a tenth of it, in words."""
        x = self.assemble(data)
        return self._outside(x.amin(0), x.amax(0)) if len(x) else []

    def _outside(self, least: Tensor, most: Tensor) -> list[str]:
        found: list[str] = []
        for i, channel in enumerate(self.inputs if "range" in self.info else ()):
            low, high = self.info["range"]["low"][i], self.info["range"]["high"][i]
            from_, to = float(least[i]), float(most[i])
            span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-30)
            over = max(low - from_, to - high) / span
            if over > 0.1:
                found.append(
                    f"input {channel.label} reaches from {from_:.5g} to {to:.5g}, in training it "
                    f"went from {low:.5g} to {high:.5g}: outside by {over:.3g} times that range"
                )
        return found

    def fields_of(self, pred: Tensor, mesh: Any = None) -> dict[str, Tensor]:
        """A prediction `[N, out]` as named fields: "pressure [Pa]", and vectors as one field.

        Channels that follow each other and are called "u_x", "u_y", "u_z" become the vector "u".
        Names that the mesh has already get the word "predicted".
        """
        taken: set[str] = set()
        for place in ("point_data", "cell_data", "vertex_attributes", "face_attributes"):
            taken |= set(getattr(mesh, place, {}))
        fields: dict[str, Tensor] = {}
        i = 0
        while i < len(self.outputs):
            stem, width = _vector(self.outputs[i:])
            label = Field("", stem, self.outputs[i].unit).label
            fields[f"{label} predicted" if label in taken else label] = pred[:, i : i + width]
            i += width
        return fields

    @property
    def _transform(self) -> Any:
        """The transform of the training data, less what was random in it; None without one."""
        from flare_geo.transforms import for_prediction, from_config

        config = self.info.get("transform")
        return for_prediction(from_config(config)) if config else None

    @property
    def is_pointwise(self) -> bool:
        """Whether the inputs of a point of a mesh, transformed, depend on that point alone."""
        from flare_geo.transforms import is_pointwise

        transform = self._transform
        return transform is None or is_pointwise(transform)

    @property
    def recipe(self) -> dict[str, Any]:
        """How a mesh becomes a case; see :mod:`flare_geo.mesh.case`."""
        fields = [channel.field for channel in self.inputs]
        usual = {"at": "point", "dim": fields.count("pos"), "outputs": []}
        usual["inputs"] = [channel.name for channel in self.inputs if channel.field == "x"]
        return {**usual, **self.info.get("mesh", {})}

    def encode(
        self,
        data: Data,
        chunk_size: int | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> "States":
        """All that an answer at any point of these clouds depends on: encode once, decode anywhere.

        The clouds decide what their own points tell each other; a further point only listens. So
        :meth:`answer` gives at the points of the clouds what :meth:`predict` gives there, and at
        others what they would be told.

        Args:
            data: a `Data` or `Batch`, as for :meth:`predict`.
            chunk_size: points at a time; all if None.
            progress: see :meth:`predict`.

        Returns:
            Of each block the states of its mixer, tensors `[B, ...]`: a few hundred kilobytes a
            cloud, whatever its size.

        Example:
            >>> from flare_geo.nn import Flare
            >>> inputs = [Field("pos", "x", "m"), Field("pos", "y", "m")]
            >>> surrogate = Surrogate(Flare(2, 1), inputs, [Field("y", "pressure", "Pa")])
            >>> states = surrogate.encode(Data(pos=torch.rand(500, 2)))
            >>> surrogate.answer(Data(pos=torch.rand(7, 2)), states).pred.shape
            torch.Size([7, 1])
        """
        x = self.assemble(data)
        size = max(1, len(x)) if chunk_size is None else chunk_size
        return self._stream(x.__getitem__, None, _offsets(data, x), size, None, progress)

    @torch.no_grad()
    def answer(self, data: Data, states: "States") -> Data:
        """A copy of `data` with the prediction at its points, from the states of :meth:`encode`.

        Raises:
            ValueError: if an input is missing or not finite, or the data have not as many clouds as
                were encoded.
        """
        from flare_geo.nn.streaming import answer

        x, ptr = self.assemble(data), data.get("ptr")
        self._check_finite(x)
        device = self.input_scaler.mean.device
        with self._evaluating():
            z = self.input_scaler(x.to(device))
            y = answer(self._cut_model(), z, states, None if ptr is None else ptr.to(device))
        result = data.clone().cpu()
        result.pred = self.output_scaler.inverse(y).cpu()
        return result

    def predict_stream(
        self,
        case_at: Callable[[slice], Data],
        write: Callable[[slice, Tensor], None],
        ptr: Tensor,
        chunk_size: int,
        *,
        features: Callable[[int, Tensor], Features] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Predict from where the points lie to where the prediction shall lie, chunk by chunk.

        Args:
            case_at: gives some points as :meth:`case_of` makes them, before the transform.
            write: takes the prediction `[n, out]` of some points, in physical units, on the CPU.
            ptr: `[B+1]` offsets of the clouds.
            chunk_size: points at a time.
            features: see :func:`flare_geo.nn.streaming.stream`.
            progress: told after each chunk which share of the work is done.

        Raises:
            ValueError: as :meth:`predict`; or a transform that needs the whole mesh.

        Warns:
            UserWarning: as :meth:`predict`, at the end.
        """
        transform = self._transform
        if not self.is_pointwise:
            raise ValueError(
                f"the transform {transform} of the inputs needs the whole mesh at once"
            )
        ends = [torch.full((len(self.inputs),), end) for end in (math.inf, -math.inf)]

        def read(at: slice) -> Tensor:
            case = case_at(at)
            x = self.assemble(transform(case) if transform else case)
            if len(x):
                ends[0], ends[1] = ends[0].minimum(x.amin(0)), ends[1].maximum(x.amax(0))
            return x

        self._stream(read, write, ptr, chunk_size, features, progress)
        for warning in self._outside(*ends):
            warnings.warn(warning, stacklevel=2)

    @torch.no_grad()
    def _predict_case(
        self,
        data: Data,
        chunk_size: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Data:
        device = self.input_scaler.mean.device
        x, ptr = self.assemble(data), data.get("ptr")
        if chunk_size is None:
            self._check_finite(x)
            with self._evaluating():
                pred = self._predict(x.to(device), None if ptr is None else ptr.to(device)).cpu()
        else:
            pred = torch.empty(len(x), len(self.outputs), dtype=x.dtype)
            ends = _offsets(data, x)
            self._stream(x.__getitem__, pred.__setitem__, ends, chunk_size, None, progress)
        result = data.clone().cpu()
        result.pred = pred
        return result

    def _stream(
        self,
        read: Callable[[slice], Tensor],
        write: Callable[[slice, Tensor], None] | None,
        ptr: Tensor,
        chunk_size: int,
        features: Callable[[int, Tensor], Features] | None,
        progress: Callable[[float], None] | None,
    ) -> "States":
        """From inputs `[n, in]` to predictions `[n, out]`, both in physical units."""
        from flare_geo.nn.streaming import stream

        model = self._cut_model()
        device = self.input_scaler.mean.device

        def scaled(at: slice) -> Tensor:
            x = read(at)
            self._check_finite(x, at.start)
            z: Tensor = self.input_scaler(x.to(device))
            return z

        def unscaled(at: slice, y: Tensor) -> None:
            if write is not None:
                write(at, self.output_scaler.inverse(y).cpu())

        with self._evaluating():
            return stream(
                model,
                scaled,
                None if write is None else unscaled,
                ptr,
                chunk_size=chunk_size,
                features=features,
                progress=progress,
            )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Inside, the surrogate is in evaluation mode; then in the one that it was in."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _cut_model(self) -> BlockModel:
        if not isinstance(self.model, BlockModel):
            raise ValueError(
                f"chunk_size needs a model that can be cut, as Flare, got "
                f"{type(self.model).__name__}: predict without it"
            )
        return self.model

    def _check_finite(self, x: Tensor, first: int = 0) -> None:
        if torch.isfinite(x).all():
            return
        row, column = torch.nonzero(~torch.isfinite(x))[0].tolist()
        channel = self.inputs[column]
        raise ValueError(
            f"input '{channel.field}' ({channel.name}) is not finite at point {first + row}; "
            "remove or repair such points first"
        )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` into `folder`, aside first, then renamed.

        Raises:
            OSError: if the disk is full; a former checkpoint in the folder stays whole.
        """
        name, given = type(self.model).__name__, getattr(self.model, "config", None)
        config = {
            "architecture": {
                "class": name,
                "arguments": given and as_json(given, name),
            },
            "inputs": [f._asdict() for f in self.inputs],
            "outputs": [f._asdict() for f in self.outputs],
            **self.info,
        }
        return write_checkpoint(folder, self, config)

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
        config, weights = read_checkpoint(folder)
        architecture = config.pop("architecture")
        if model is None:
            if architecture["class"] not in MODELS or architecture["arguments"] is None:
                raise ValueError(
                    f"the checkpoint in {folder} holds a model of class '{architecture['class']}', "
                    f"which is not one of {', '.join(MODELS)}: pass model=..."
                )
            model = MODELS[architecture["class"]].from_config(architecture["arguments"])
        surrogate = cls(
            model,
            [Field(**f) for f in config.pop("inputs")],
            [Field(**f) for f in config.pop("outputs")],
            info=config,
        )
        load_weights(surrogate, weights, folder)
        return surrogate.eval()
