import numpy as np
import pytest

from flare_geo.viz import plot_learning_curves
from flare_geo.viz.charts.curves import COLORS, curves, read_metrics

METRICS = """epoch,lr-AdamW,step,test/rel_l2,train/loss,val/rel_l2
0,0.001,4,,,
0,,4,,2.0,
0,,9,,1.0,
0,,9,,,0.5
1,0.0005,14,,,
1,,19,,0.25,
1,,19,,,0.125
1,,20,0.0625,,
"""


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    return path


def test_blank_cells_are_skipped_and_values_of_an_epoch_are_averaged(metrics):
    found = {
        name: (x.tolist(), y.tolist()) for name, (x, y) in curves(read_metrics(metrics)).items()
    }
    assert found == {
        "lr-AdamW": ([1, 2], [0.001, 0.0005]),
        "test/rel_l2": ([2], [0.0625]),
        "train/loss": ([1, 2], [1.5, 0.25]),
        "val/rel_l2": ([1, 2], [0.5, 0.125]),
    }


def test_step_values_give_way_to_epoch_values():
    table = {"epoch": [0, 0], "train/loss_step": [3.0, 1.0], "train/loss_epoch": [np.nan, 2.0]}
    assert list(curves(table)) == ["train/loss"]


def test_the_curves_are_in_the_picture(metrics, tmp_path):
    path = tmp_path / "curves.png"
    image = plot_learning_curves(metrics, path, title="run")
    for split in ("train", "val", "test"):
        color = [int(COLORS[split][i : i + 2], 16) for i in (1, 3, 5)]
        assert np.sum(np.all(image == color, axis=-1)) > 50
    assert path.stat().st_size > 0
    assert not list(tmp_path.glob(".*"))


def test_a_mapping_of_epochs_draws_the_same_as_the_file(metrics):
    history = {
        "test/rel_l2": [np.nan, 0.0625],
        "train/loss": [1.5, 0.25],
        "val/rel_l2": [0.5, 0.125],
        "lr": [0.001, 0.0005],
    }
    np.testing.assert_array_equal(plot_learning_curves(history), plot_learning_curves(metrics))


def test_without_a_learning_rate_there_is_one_panel():
    image = plot_learning_curves({"val/rel_l2": [0.5, 0.2, float("inf"), 0.1]})
    assert image.dtype == np.uint8


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to draw.*got \['accuracy'\]"):
        plot_learning_curves({"accuracy": [1.0]})
    with pytest.raises(ValueError, match="must have as many values as 'epoch'"):
        plot_learning_curves({"epoch": [0, 1], "train/loss": [1.0]})
    with pytest.raises(FileNotFoundError):
        plot_learning_curves(tmp_path / "none.csv")
