"""The network diagram says what the plan says, counts parameters rightly and is written in every format."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from NNSegmentLib.errors import SettingsError
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.parameters import count_parameters
from NNSegmentLib.planning.plan import PLAIN, RESIDUAL, Configuration, NetworkSpec, load_plan
from NNSegmentLib.report.diagram import (
    configuration_figure,
    draw_network,
    network_figure,
    stage_shapes,
    stage_spacing_mm,
)


def plain(features, dimensions=3, **values) -> NetworkSpec:
    n = len(features)
    usual = {
        "kernel_sizes": ((3,) * dimensions,) * n,
        "strides": ((1,) * dimensions,) + ((2,) * dimensions,) * (n - 1),
        "blocks": (2,) * n,
        "decoder_convs": (2,) * (n - 1),
    }
    return NetworkSpec(PLAIN, tuple(features), **(usual | values))


ANISOTROPIC = NetworkSpec(
    RESIDUAL, (8, 16, 16), ((1, 3, 3), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), (1, 3, 4), (1, 2)
)


LABELS = LabelSet((Label("background", (0,)), Label("front", (1,)), Label("back", (2,))))


CASCADE = Configuration(
    "3d_cascade_fullres",
    "",
    2,
    (16, 16, 16),
    (16, 16, 16),
    (1.0, 1.0, 1.0),
    ("ZScoreNormalization",),
    (False,),
    plain((8, 16)),
    False,
    previous_stage="3d_lowres",
)


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_parameters_of_a_six_stage_u_net_on_128_voxels_equal_the_published_count():
    assert count_parameters(plain((32, 64, 128, 256, 320, 320)), 1, 3) == 31_196_399


def test_parameters_of_the_hippocampus_network_equal_the_published_count():
    assert count_parameters(plain((32, 64, 128, 256)), 1, 3) == 5_603_177


def test_parameters_of_a_small_residual_network_equal_a_count_by_hand():
    stem = 2 * 8 * 9 + 8 + 16
    first = 2 * (8 * 8 * 9 + 8 + 16)
    second = (8 * 16 * 27 + 16 + 32) + 5 * (16 * 16 * 27 + 16 + 32) + (8 * 16 + 32)
    third = 8 * (16 * 16 * 27 + 16 + 32)  # pooled shortcut, no weights
    coarse = (16 * 16 * 8 + 16) + (32 * 16 * 27 + 48) + (16 * 5 + 5)
    fine = (16 * 8 * 4 + 8) + (16 * 8 * 9 + 24) + (8 * 8 * 9 + 24) + (8 * 5 + 5)

    assert count_parameters(ANISOTROPIC, 2, 5) == stem + first + second + third + coarse + fine


def test_every_stage_is_as_large_as_its_strides_leave_it():
    assert stage_shapes(ANISOTROPIC, (10, 32, 30)) == ((10, 32, 30), (10, 16, 15), (5, 8, 8))
    assert stage_spacing_mm(ANISOTROPIC, (5.0, 1.5, 1.0), 2) == (10.0, 6.0, 4.0)


def test_the_diagram_names_features_kernels_strides_sizes_and_outputs():
    shown = words(network_figure(ANISOTROPIC, (10, 32, 32), (5.0, 1.5, 1.5), 2, 5, "3d_fullres"))

    assert "3d_fullres: residual-encoder U-Net" in shown
    assert "input: 2 channels · 10×32×32" in shown
    assert {"8 features", "16 features", "1 residual block 1×3×3", "3 residual blocks 3×3×3"} <= set(shown)
    assert {"stride 1×2×2", "stride 2×2×2", "transposed 2×2×2", "transposed 1×2×2"} <= set(shown)
    assert {"10×32×32 at 5×1.5×1.5 mm", "10×16×16 at 5×3×3 mm", "5×8×8 at 10×6×6 mm"} <= set(shown)
    assert {"output: 5 maps", "10×32×32 · loss × 1.00", "10×16×16 · unused"} <= set(shown)


@pytest.mark.parametrize("features", [(8, 16), (32, 64, 128, 256, 320, 320), (32,) * 9])
def test_no_text_leaves_the_picture_or_its_block(features):
    figure = network_figure(plain(features, dimensions=2), (512, 512), (0.7, 0.7), 1, 2, "2d")
    figure.canvas.draw()
    frame = figure.bbox
    blocks = [patch.get_window_extent() for patch in figure.axes[0].patches]

    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        if not text.get_text():
            continue
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, text
        for block in blocks:
            if block.x0 <= box.x0 <= block.x1 and block.y0 <= (box.y0 + box.y1) / 2 <= block.y1:
                assert box.x1 <= block.x1, text


def test_a_cascades_second_stage_also_takes_the_first_ones_labels():
    assert "input: 3 channels · 16×16×16" in words(configuration_figure(CASCADE, LABELS, 1))


def test_svg_png_and_pdf_are_written_by_the_files_ending(tmp_path):
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for ending, start in starts.items():
        path = draw_network(CASCADE, LABELS, 1, tmp_path / f"net.{ending}")
        assert path.read_bytes().startswith(start)
    ElementTree.parse(tmp_path / "net.svg")
    assert "8 features" in (tmp_path / "net.svg").read_text()


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=re.escape("found net.bmp")):
        draw_network(CASCADE, LABELS, 1, tmp_path / "net.bmp")


@pytest.mark.parametrize(
    ("data_set", "plans", "configuration"),
    [
        ("Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres"),
        ("Dataset520_CardiacCine", "nnUNetResEncUNetLPlans", "3d_fullres"),
        ("Dataset530_Membranes", "nnUNetPlans", "2d"),
    ],
)
def test_every_planned_stage_of_nnunets_own_plans_is_drawn(peer, data_set, plans, configuration):
    planned = load_plan(peer / "plans" / data_set / f"{plans}.json").configuration(configuration)

    shown = words(configuration_figure(planned, LABELS, 1))

    assert sum(text.endswith(" features") for text in shown) == 2 * planned.network.n_stages - 1
