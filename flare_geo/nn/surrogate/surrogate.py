"""A trained model together with all it needs to be used: physical units in, physical units out."""

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from flare_geo.nn.checkpoint import load_weights, read_checkpoint, write_checkpoint
from flare_geo.nn.surrogate import run
from flare_geo.nn.surrogate.channels import Field, assemble, columns_of, outside
from flare_geo.nn.surrogate.checkpoint import architecture_of, build_model
from flare_geo.nn.surrogate.run import Inputs, Stream
from flare_geo.nn.surrogate.scaler import Scaler
from flare_geo.nn.surrogate.streaming import States, Write
from flare_geo.pyg import Data

if TYPE_CHECKING:
    from flare_geo.mesh import MeshCase


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
        y: Tensor = self.model(self.input_scaler(self.assemble(batch)), batch.get("ptr"))
        return self.output_scaler.inverse(y)

    def assemble(self, batch: Data) -> Tensor:
        """`[N, in]`: the input fields of the batch side by side.

        Raises:
            ValueError: if a field is missing or has another number of channels than the surrogate
                was trained with.
        """
        return assemble(self.inputs, batch)

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
            progress: with a `chunk_size`, is told after each chunk which share of the work is done.

        Returns:
            A `Data` with `pred [N, out]`; or the mesh, its points, cells and arrays as they were,
            with the fields of :meth:`fields_of` added.

        Raises:
            ValueError: if an input is missing, of another width, or not finite; if `chunk_size` is
                not positive, or the model cannot be cut into chunks.

        Warns:
            UserWarning: if an input of a mesh lies outside the training data; says which and by
                how much.
        """
        how = Stream(chunk_size, progress=progress)
        if isinstance(data, Data):
            return self._with_pred(data, how)
        from flare_geo.mesh import add_fields, array_names

        chunks: list[Tensor] = []
        self.predict_case(self._case(data, given), lambda _, pred: chunks.append(pred), how)
        fields = self.fields_of(torch.cat(chunks), array_names(data))
        return add_fields(data, fields, at=self.recipe["at"])

    def encode(
        self,
        data: Data,
        chunk_size: int | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> States:
        """All that an answer at any point of these clouds depends on: encode once, decode anywhere.

        Only the encoded points interact. At those points :meth:`answer` equals :meth:`predict`; at
        any other point it evaluates the same field.

        Args:
            data: a `Data` or `Batch`, as for :meth:`predict`.
            chunk_size: points at a time; all if None.
            progress: see :meth:`predict`.

        Returns:
            Per block, the states of its mixer, tensors `[B, ...]`: a few hundred kilobytes per
            cloud, whatever its size.

        Example:
            >>> from flare_geo.nn import Flare
            >>> inputs = [Field("pos", "x", "m"), Field("pos", "y", "m")]
            >>> surrogate = Surrogate(Flare(2, 1), inputs, [Field("y", "pressure", "Pa")])
            >>> states = surrogate.encode(Data(pos=torch.rand(500, 2)))
            >>> surrogate.answer(Data(pos=torch.rand(7, 2)), states).pred.shape
            torch.Size([7, 1])
        """
        inputs = Inputs.of(self.assemble(data), data.get("ptr"))
        return run.encode(self, inputs, Stream(chunk_size, progress=progress))

    def answer(self, data: Data, states: States, chunk_size: int | None = None) -> Data:
        """A copy of `data` with the prediction at its points, from the states of :meth:`encode`.

        Raises:
            ValueError: if an input is missing or not finite, or the data have not as many clouds as
                were encoded.
        """
        return self._with_pred(data, Stream(chunk_size), states)

    def case_of(self, mesh: Any, given: Mapping[str, float] | None = None) -> Data:
        """The case that a mesh is for this surrogate, transformed as for training.

        Raises:
            ValueError: an input is neither on the mesh nor among `given`; says what there is.

        Warns:
            UserWarning: as :meth:`predict`.
        """
        return self._prepared(self._case(mesh, given))

    def predict_case(
        self, case: "MeshCase", write: Write, how: Stream, states: States | None = None
    ) -> None:
        """Predict from where the points of a mesh lie to where the prediction shall lie.

        In chunks, only a chunk of the case is read at a time, unless the transform of the inputs
        needs all points.

        Args:
            case: the mesh, read by the :attr:`recipe`.
            write: takes the prediction `[n, out]` of some points, chunk after chunk, in physical
                units and with the transform undone, on the CPU.
            how: whole or in chunks.
            states: of :meth:`encode_case`: the points are answered from them.

        Raises:
            ValueError: as :meth:`predict`.

        Warns:
            UserWarning: as :meth:`predict`; in chunks, at the end.
        """
        if how.chunk_size is not None and self.is_pointwise:
            with _Reader(self, case) as reader:
                run.predict(self, reader.inputs, write, how, states)
            return
        from flare_geo.transforms import undo

        predicted = self._with_pred(self._prepared(case), how, states)
        transform = self._transform
        pred = (undo(transform, predicted) if transform else predicted).pred
        write(slice(0, len(pred)), pred)

    def encode_case(self, case: "MeshCase", how: Stream) -> States:
        """:meth:`encode` for the points of a mesh, read as by :meth:`predict_case`."""
        if how.chunk_size is not None and self.is_pointwise:
            with _Reader(self, case) as reader:
                return run.encode(self, reader.inputs, how)
        return run.encode(self, Inputs.of(self.assemble(self._prepared(case))), how)

    def columns_of(self, taken: Collection[str] = ()) -> dict[str, slice]:
        """The columns of a prediction by the name of their field, see :meth:`fields_of`."""
        return columns_of(self.outputs, taken)

    def fields_of(self, pred: Tensor, taken: Collection[str] = ()) -> dict[str, Tensor]:
        """A prediction `[N, out]` as named fields: "pressure [Pa]", and vectors as one field.

        Channels that follow each other and are called "u_x", "u_y", "u_z" become the vector "u".

        Args:
            pred: the prediction.
            taken: names that the mesh has already: such a field gets the word "predicted".
        """
        return {name: pred[:, at] for name, at in self.columns_of(taken).items()}

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

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `config.json` into `folder`, aside first, then renamed.

        Raises:
            OSError: if the disk is full; a former checkpoint in the folder stays whole.
        """
        config = {
            "architecture": architecture_of(self.model),
            "inputs": [f._asdict() for f in self.inputs],
            "outputs": [f._asdict() for f in self.outputs],
            **self.info,
        }
        return write_checkpoint(folder, self, config)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, model: nn.Module | type[nn.Module] | None = None
    ) -> Self:
        """The surrogate that was saved in `folder`. Nothing in the folder is run as code.

        Args:
            folder: a local folder with `model.safetensors` and `config.json`.
            model: your own class, or an instance of it, when the checkpoint holds one.

        Raises:
            FileNotFoundError: if there is no checkpoint in the folder.
            ValueError: if the checkpoint is damaged, newer than this package, holds an unknown
                class, or weights of other names or shapes than the model.
        """
        config, weights = read_checkpoint(folder)
        model = build_model(config.pop("architecture"), model, folder)
        inputs, outputs = ([Field(**f) for f in config.pop(key)] for key in ("inputs", "outputs"))
        surrogate = cls(model, inputs, outputs, info=config)
        load_weights(surrogate, weights, folder)
        return surrogate.eval()

    def _case(self, mesh: Any, given: Mapping[str, float] | None) -> "MeshCase":
        from flare_geo.mesh import MeshCase, WholeMesh

        recipe = self.recipe
        return MeshCase(WholeMesh(mesh, recipe["at"], recipe["dim"]), recipe, given)

    def _prepared(self, case: "MeshCase") -> Data:
        data = case.cloud()
        if transform := self._transform:
            data = transform(data)
        x = self.assemble(data)
        if len(x):
            self._warn(x.amin(0), x.amax(0))
        return data

    def _with_pred(self, data: Data, how: Stream, states: States | None = None) -> Data:
        x = self.assemble(data)
        chunks: list[Tensor] = [x.new_empty(0, len(self.outputs))] if len(x) == 0 else []
        inputs = Inputs.of(x, data.get("ptr"))
        run.predict(self, inputs, lambda _, pred: chunks.append(pred), how, states)
        result = data.clone().cpu()
        result.pred = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        return result

    @property
    def _transform(self) -> Any:
        """The transform of the training data, less what was random in it; None without one."""
        from flare_geo.transforms import for_prediction, from_config

        config = self.info.get("transform")
        return for_prediction(from_config(config)) if config else None

    def _warn(self, least: Tensor, most: Tensor) -> None:
        for warning in outside(self.inputs, self.info.get("range"), least, most):
            warnings.warn(warning, stacklevel=3)


class _Reader:
    """Inputs read from a case chunk by chunk; warns in the end where they left the training range.

    The transform of the inputs must be pointwise.
    """

    def __init__(self, surrogate: Surrogate, case: "MeshCase") -> None:
        self.surrogate, self.case, self.transform = surrogate, case, surrogate._transform
        self.inputs = Inputs(self._read, case.source.num_points, case.source.ptr)
        self.least, self.most = (
            torch.full((len(surrogate.inputs),), end) for end in (math.inf, -math.inf)
        )

    def _read(self, at: slice) -> Tensor:
        data = self.case.cloud(at)
        x = self.surrogate.assemble(self.transform(data) if self.transform else data)
        if len(x):
            self.least, self.most = self.least.minimum(x.amin(0)), self.most.maximum(x.amax(0))
        return x

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self.surrogate._warn(self.least, self.most)
