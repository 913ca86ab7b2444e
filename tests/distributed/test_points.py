"""Clouds spread over two, three and four ranks (gloo) against one process."""

import subprocess
import sys
from pathlib import Path

import point_worker
import pytest
import torch
from closeness import bound

from flare_geo.distributed import shard_points, share_of
from flare_geo.nn import MIXERS, SumMixer

WORKER = Path(point_worker.__file__)
SIZES = (0, 41, 3, 1, 60)  # fewer points than ranks in some clouds: empty shards


def spread(world, folder, dtype, sizes, mixers=()):
    """What each rank found."""
    command = [sys.executable, str(WORKER)]
    ranks = [
        subprocess.Popen(
            [*command, str(r), str(world), str(folder), dtype, *map(str, sizes), *mixers],
            stderr=subprocess.PIPE,
        )
        for r in range(world)
    ]
    for process in ranks:
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said.decode()
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(world)]


@pytest.mark.parametrize(("world", "dtype"), [(2, "float32"), (3, "float64"), (4, "float64")])
def test_ranks_together_do_what_one_process_does(world, dtype, tmp_path):
    same(world, dtype, tmp_path)


def test_every_mixer_whose_points_meet_in_sums(tmp_path):
    same(2, "float64", tmp_path, [n for n in MIXERS if issubclass(MIXERS[n], SumMixer)])


def same(world, dtype, tmp_path, mixers=()):
    """Ranks together do what one process does, but for the rounding of a block after the other."""
    limit = bound(getattr(torch, dtype), sum(SIZES), 32 * max(1, len(mixers)))
    found = spread(world, tmp_path, dtype, SIZES, mixers)
    (pred, _, *grads), weights = point_worker.run(SIZES, getattr(torch, dtype), mixers)
    points = torch.cat([first[1] for first, _, _ in found])
    assert points.sort()[0].tolist() == list(range(sum(SIZES))), "every point on one rank"
    joined = torch.cat([first[0] for first, _, _ in found])[points.argsort()]
    assert relative([joined], [pred]) <= limit, "predictions"
    for rank, ((_, _, *own), after, _) in enumerate(found):
        assert relative(own, grads) <= limit, f"gradients of rank {rank}"
        assert relative(after, weights) <= limit, f"weights of rank {rank} after three steps"


def relative(found, expected):
    """Error of some tensors together."""
    a, b = (torch.cat([t.flatten() for t in each]) for each in (found, expected))
    return float((a - b).norm() / b.norm())


def test_what_is_sent_does_not_depend_on_the_points(tmp_path):
    """H M (D + 1) numbers a cloud and layer there, H M D back, and the weights' gradients."""
    clouds, layers, heads, latents, width = 3, 2, 2, 7, 8
    for sizes in ((5, 9, 30), (50, 90, 300)):
        folder = tmp_path / str(sizes[0])
        folder.mkdir()
        found = spread(2, folder, "float32", sizes)
        weights = sum(p.numel() for p in found[0][1])
        there = [clouds * heads * latents * (width + 1)] * layers
        step = [*there, 2 * clouds]
        step += [clouds * heads * latents * width] * layers + [weights]
        for _, _, sent in found:
            assert sent == 3 * step + 2 * there  # and a prediction in chunks, and one in one piece


def test_shares_are_even_and_complete():
    ptr = torch.tensor([0, 0, 10, 11, 40])
    shares = [share_of(ptr, rank, 3) for rank in range(3)]
    assert torch.cat([at for at, _ in shares]).sort()[0].tolist() == list(range(40))
    for at, own in shares:
        assert own[-1] == len(at)
        assert (at.diff() > 0).all()
    counts = torch.stack([own.diff() for _, own in shares])
    assert (counts.max(0)[0] - counts.min(0)[0]).max() <= 1


def test_one_line_says_what_is_wrong():
    with pytest.raises(ValueError, match="rank must be 0 to 2, got 3"):
        share_of(torch.tensor([0, 4]), 3, 3)
    with pytest.raises(ValueError, match="Linear has no mixer whose sums"):
        shard_points(torch.nn.Linear(2, 2))
