"""Forces on a body from the pressure and friction on its surface."""

from __future__ import annotations

from torch import Tensor

from flare_geo.metrics.relative import _wide
from flare_geo.ops import Layout, make_layout
from flare_geo.ops.numerics import wide_dtype


def surface_force(
    pressure: Tensor,
    wall_shear: Tensor | None,
    area_vector: Tensor,
    ptr: Tensor | Layout | None = None,
) -> Tensor:
    r"""Force on each body, :math:`F = \sum_f p_f A_f - \tau_f |A_f|` over the faces of its surface.

    The convention is OpenFOAM's: the area vectors point out of the fluid, into the body, and the
    wall shear stress is the one its solvers write, which points against the flow along the wall.
    For area vectors that point out of the body, negate them; :math:`\tau` stays as it is.

    Sums are taken in float64 (float32 on devices that have nothing wider), because the pressures
    on the two ends of a car nearly cancel. All arguments can be differentiated.

    Args:
        pressure: Mean over each face. Kinematic pressure gives a kinematic force (per density).
        wall_shear: In the unit of the pressure; None leaves friction out.
        area_vector: Normal of each face times its area; for faces of more than three corners
            :math:`A = \frac12 \sum_k (v_k - c) \times (v_{k+1} - c)`. In a data set:
            ``data.area * data.normal``.
        ptr: Offsets of the bodies, None for one.

    Shapes:
        - **pressure:** `[N]`; **wall_shear, area_vector:** `[N, 3]`; **ptr:** `[B+1]`;
          **returns** `[B, 3]`

    Raises:
        ValueError: if shapes or `ptr` do not fit.

    Example:
        >>> square = torch.tensor([[0.0, 0.0, -2.0]])
        >>> surface_force(torch.tensor([3.0]), torch.tensor([[-0.5, 0.0, 0.0]]), square)
        tensor([[ 1.,  0., -6.]])
    """
    n = pressure.shape[0] if pressure.ndim == 1 else -1
    vectors = [area_vector] if wall_shear is None else [wall_shear, area_vector]
    if any(v.shape != (n, 3) for v in vectors):
        shapes = ", ".join(str(list(v.shape)) for v in (pressure, *vectors))
        raise ValueError(
            f"pressure must be [N] and the vectors [N, 3], one row per face, got {shapes}"
        )
    layout = make_layout(ptr, n, pressure.device)
    area = _wide(area_vector)
    force = _wide(pressure).unsqueeze(-1) * area  # [N, 3]
    if wall_shear is not None:
        force = force - _wide(wall_shear) * area.norm(dim=1, keepdim=True)
    total = force.new_zeros(layout.num_clouds, 3).index_add(0, layout.batch, force)
    return total.to(wide_dtype(pressure.dtype))


def force_coefficients(
    force: Tensor, dynamic_pressure: Tensor | float, reference_area: Tensor | float
) -> tuple[Tensor, Tensor]:
    r"""Drag and lift coefficient :math:`C_d = F_x / q A` and :math:`C_l = F_z / q A`.

    The flow is along +x and +z is up. For coefficients over a set of bodies, the measures are those
    of any field: ``r2_score(cd.unsqueeze(1), true.unsqueeze(1))``.

    Args:
        force: What :func:`surface_force` returns.
        dynamic_pressure: :math:`q = \frac12 \rho U^2`, without :math:`\rho` for kinematic forces;
            1 where pressure and shear are coefficients already.
        reference_area: The area A the published coefficients refer to.

    Shapes:
        - **force:** `[B, 3]`; **dynamic_pressure, reference_area:** numbers or `[B]`;
          **returns** two of `[B]`

    Example:
        >>> force_coefficients(torch.tensor([[6.0, 0.0, -3.0]]), 2.0, 1.5)
        (tensor([2.]), tensor([-1.]))
    """
    if force.ndim != 2 or force.shape[1] != 3:
        raise ValueError(f"force must be [B, 3], got {list(force.shape)}")
    for name, value in (("dynamic_pressure", dynamic_pressure), ("reference_area", reference_area)):
        if isinstance(value, Tensor) and value.shape not in ((), force.shape[:1]):
            raise ValueError(
                f"{name} must be a number or [{force.shape[0]}], got {list(value.shape)}"
            )
    scale = dynamic_pressure * reference_area
    return force[:, 0] / scale, force[:, 2] / scale
