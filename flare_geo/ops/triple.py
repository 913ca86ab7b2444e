"""Triple attention on packed clouds: the public functions, their documentation and checks."""

from torch import Tensor

from flare_geo.ops.dispatch import choose
from flare_geo.ops.layout import Layout, make_layout
from flare_geo.ops.numerics import wide_dtype


def triple_attention(
    q1: Tensor,
    q2: Tensor,
    k1: Tensor,
    k2: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""Third-order attention without softmax, at a cost linear in the number of points.

    .. math::
        y_n = \frac{1}{N_b} \sum_m (q^1_n \cdot k^1_m)\, (q^2_n \cdot k^2_m)\, v_m

    The sum runs over the cloud of n. It is :func:`triple_output` of :func:`triple_state`:
    O(N D^3) per head instead of O(N^2 D). From the articles "Higher-Order Attention in Linear Time"
    and "Triple Attention in Triton" of the authors of FLARE; related to `2-simplicial attention
    <https://arxiv.org/abs/1909.00668>`_.

    Args:
        q1: first queries of the points.
        q2: second queries.
        k1: first keys.
        k2: second keys.
        v: values.
        ptr: offsets of the clouds, None for one cloud; a :class:`Layout` skips the checks.
        backend: ``"torch"``, ``"triton"`` (one width D up to 32, half and single precision), or
            ``"auto"``: the kernels where they can run on a GPU, torch elsewhere.

    Shapes:
        - **q1, k1:** `[N, H, I]`; **v:** `[N, H, J]`; **q2, k2:** `[N, H, K]`; usually
          I = J = K = D; **ptr:** `[B+1]` int64
        - **returns** y: `[N, H, J]` in the dtype of the inputs

    Raises:
        ValueError: if shapes, dtypes, `ptr` or the backend do not fit, in one line that says how.
        TypeError: if ``"triton"`` is asked for float64.

    Example:
        >>> q1, q2, k1, k2, v = torch.randn(5, 500, 8, 16).unbind()
        >>> triple_attention(q1, q2, k1, k2, v, ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 8, 16])
    """
    layout = _layout({"q1": q1, "q2": q2, "k1": k1, "k2": k2, "v": v}, ptr)
    state = triple_state(k1, v, k2, layout, backend=backend)
    return triple_output(q1, state, q2, layout, backend=backend)


def triple_state(
    k1: Tensor,
    v: Tensor,
    k2: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""First half of :func:`triple_attention`: the state of a cloud.

    .. math::
        S_{ijk} = \frac{1}{N_b} \sum_m k^1_{mi}\, v_{mj}\, k^2_{mk}

    A mean over points: states of chunks of a cloud merge by their numbers of points,
    `(n1 S1 + n2 S2) / (n1 + n2)`. Without points S = 0.

    Shapes:
        - **k1:** `[N, H, I]`; **v:** `[N, H, J]`; **k2:** `[N, H, K]`; **ptr:** `[B+1]` int64
        - **returns** S: `[B, H, I, J, K]`, float32 or wider

    Raises:
        ValueError: if shapes, dtypes, `ptr` or the backend do not fit.
        TypeError: if ``"triton"`` is asked for float64.

    Example:
        >>> k1, v, k2 = torch.randn(3, 500, 8, 16).unbind()
        >>> a, b = (triple_state(k1[s], v[s], k2[s]) for s in (slice(0, 200), slice(200, 500)))
        >>> torch.allclose((200 * a + 300 * b) / 500, triple_state(k1, v, k2), atol=1e-5)
        True
    """
    layout = _layout({"k1": k1, "v": v, "k2": k2}, ptr)
    widths = (k1.shape[-1], v.shape[-1], k2.shape[-1])
    state: Tensor = choose("triple", backend, k1, widths).mean_of_products(k1, v, k2, layout)
    return state


def triple_output(
    q1: Tensor,
    state: Tensor,
    q2: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""Second half of :func:`triple_attention`: each point reads the state of its cloud.

    .. math::
        y_{nj} = \sum_{ik} q^1_{ni}\, S_{ijk}\, q^2_{nk}

    Pointwise: the points may be others than those of the state.

    Shapes:
        - **q1:** `[N, H, I]`; **state:** `[B, H, I, J, K]`; **q2:** `[N, H, K]`; **ptr:** `[B+1]`
        - **returns** y: `[N, H, J]` in the dtype of q1

    Raises:
        ValueError: if shapes, dtypes, `ptr` or the backend do not fit.
        TypeError: if ``"triton"`` is asked for float64.

    Example:
        >>> q1, q2 = torch.randn(2, 500, 8, 16).unbind()
        >>> triple_output(q1, torch.randn(1, 8, 16, 16, 16), q2).shape
        torch.Size([500, 8, 16])
    """
    layout = _layout({"q1": q1, "q2": q2}, ptr)
    lead = (layout.num_clouds, q1.shape[1], q1.shape[2])
    if state.ndim != 5 or state.shape[:3] != lead or state.shape[4] != q2.shape[-1]:
        raise ValueError(
            f"state must be [B={lead[0]}, H={lead[1]}, I={lead[2]}, J, K={q2.shape[-1]}] to fit "
            f"q1, q2, ptr, got {list(state.shape)}"
        )
    if not state.is_floating_point() or state.device != q1.device:
        raise ValueError(
            f"state must be floating and on {q1.device}, got {state.dtype} on {state.device}"
        )
    state = state.to(wide_dtype(q1.dtype))
    widths = (q1.shape[-1], state.shape[3], q2.shape[-1])
    y: Tensor = choose("triple", backend, q1, widths).read_state(q1, state, q2, layout)
    return y


def _layout(packed: dict[str, Tensor], ptr: Tensor | Layout | None) -> Layout:
    """Check packed features against the first of them; widths must fit from q to k only."""
    (first, x), *others = packed.items()
    if x.ndim != 3:
        raise ValueError(f"{first} must be [N, H, D], got {list(x.shape)}")
    for name, y in others:
        if y.ndim != 3 or y.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"{name} must be [N={x.shape[0]}, H={x.shape[1]}, D] to fit {first}, "
                f"got {list(y.shape)}"
            )
        partner = packed.get(name.replace("k", "q"), y)
        if y.shape != partner.shape:
            raise ValueError(
                f"{name} must be {list(partner.shape)} to fit {name.replace('k', 'q')}, "
                f"got {list(y.shape)}"
            )
    dtypes, devices = {y.dtype for y in packed.values()}, {y.device for y in packed.values()}
    if len(dtypes) > 1 or not x.is_floating_point():
        raise ValueError(f"{', '.join(packed)} must share one floating dtype, got {dtypes}")
    if len(devices) > 1:
        raise ValueError(f"{', '.join(packed)} must be on one device, got {devices}")
    return make_layout(ptr, x.shape[0], x.device)
