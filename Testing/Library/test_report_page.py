"""The report holds what is on disk, says what is missing, needs nothing from outside and survives damaged files."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import shutil
import time
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from task_on_disk import edit_json

from NNSegmentLib import pipeline
from NNSegmentLib.errors import TaskError
from NNSegmentLib.fingerprint import CaseFacts, Fingerprint, compute_fingerprint, save_fingerprint
from NNSegmentLib.folders import ModelFolders, TaskFolders, Workspace
from NNSegmentLib.image import read_labels, write_labels
from NNSegmentLib.integrity import Finding
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.planning.plan import PLAIN, Configuration, IntensityStats, NetworkSpec, Plan, save_plan
from NNSegmentLib.planning.planner import make_plan as planned
from NNSegmentLib.postprocessing_rules import KeepLargest, PostProcessing, save_postprocessing
from NNSegmentLib.provenance.made_of import MadeOf, save_made_of
from NNSegmentLib.report.contents import TrainedFold, TrainedModel, gather
from NNSegmentLib.report.page import write_report
from NNSegmentLib.report.result_sections import best_and_worst
from NNSegmentLib.run import EpochFinished, Finished, append_event
from NNSegmentLib.sample import make_sample_task
from NNSegmentLib.scores import CaseScores, Metrics, Scores, save_scores
from NNSegmentLib.selection.record import Candidate, Member, Selection, load_selection, save_selection
from NNSegmentLib.task import load_task, write_dataset_json

NOW = datetime(2024, 3, 1, 12, 30)
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
LABELS = LabelSet((Label("background", (0,)), Label("cell", (1,))))


def configuration(name: str, dimensions: int) -> Configuration:
    network = NetworkSpec(
        PLAIN,
        (8, 16, 32),
        ((3,) * dimensions,) * 3,
        ((1,) * dimensions, (2,) * dimensions, (2,) * dimensions),
        (2, 2, 2),
        (2, 2),
    )
    size, spacing = (40, 48, 48)[-dimensions:], (1.1, 1.0, 1.0)[-dimensions:]
    return Configuration(name, name, 2, size, size, spacing, ("ZScoreNormalization",), (False,), network, False)


def make_plan(name: str) -> Plan:
    return Plan(
        name,
        "nnUNetPlans",
        (0, 1, 2),
        (configuration("3d_fullres", 3), configuration("2d", 2)),
        (IntensityStats(100.0, 20.0, 0.0, 200.0, 100.0, 10.0, 190.0),),
        (1.1, 1.0, 1.0),
        (40, 48, 48),
        reasons={"spacing": "The median spacing <of all cases>.", "3d_fullres.batch_size": "What fits into memory."},
    )


def metrics(prediction: np.ndarray, reference: np.ndarray) -> Metrics:
    tp, fp = int((prediction & reference).sum()), int((prediction & ~reference).sum())
    fn = int((~prediction & reference).sum())
    dice, iou = 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)
    return Metrics(dice, iou, tp, fp, fn, 0, tp + fp, tp + fn, 1.5, 0.9, 1.0)


def train(folders: TaskFolders, model: ModelFolders, fold: int, cases, noise: float) -> None:
    """What a validated run leaves behind; predictions are the references with a wobbling surface."""
    run, rng = model.fold(fold), np.random.default_rng(fold)
    for epoch in range(1, 31):
        dice = 0.9 * (1 - math.exp(-epoch / 8))
        append_event(
            run.events,
            EpochFinished(epoch, 30, -dice, 0.1 - dice, (dice, dice), dice, dice, 0.01, 4.0, 1.0, 1e9, epoch),
        )
    append_event(run.events, Finished(1e9, 0.8))
    scores = []
    for case in cases:
        reference = read_labels(case.labels)
        shift = ndimage.gaussian_filter(rng.normal(size=(3, *reference.array.shape)), (0, 4, 4, 4)) * 60 * noise
        where = np.clip(np.indices(reference.array.shape) + shift, 0, None)
        predicted = ndimage.map_coordinates(reference.array, where, order=0, mode="nearest")
        file = run.validation / f"{case.id}.nii.gz"
        write_labels(file, predicted, reference.geometry)
        each = tuple(metrics(predicted == value, reference.array == value) for value in (1, 2))
        scores.append(CaseScores(case.id, each, file, case.labels))
    save_scores(Scores(((1,), (2,)), tuple(scores)), run.summary)


def make_workspace(root: Path) -> TaskFolders:
    """A task on which every step was done: two folds, two configurations, a selection."""
    workspace = Workspace.at(root)
    folder = make_sample_task(workspace.raw / "Dataset900_Sample", n_cases=4, n_test=0)
    folders, task = workspace.task(900), load_task(folder)
    save_fingerprint(compute_fingerprint(task), folders.fingerprint)
    plan = make_plan(folders.name)
    save_plan(plan, folders.plan(plan.name))
    for name, noise in (("3d_fullres", 0.8), ("2d", 1.6)):
        model = folders.model(plan.name, name)
        save_plan(plan, model.plan)
        shutil.copy(folder / "dataset.json", model.dataset_json)
        for fold in (0, 1):
            train(folders, model, fold, task.cases[fold::2], noise)
    select(folders)
    return folders


def select(folders: TaskFolders) -> None:
    """What choosing 3d_fullres over 2d leaves behind, with a post-processing step that helped."""
    names = ("3d_fullres", "2d")
    members = [Member("nnUNetTrainer", "nnUNetPlans", name) for name in names]
    nothing = Scores((), ())
    rules = save_postprocessing(PostProcessing((KeepLargest(((1,), (2,))),)), folders.results, nothing, nothing)
    candidates = tuple(
        Candidate((m,), folders.results, dice, ()) for m, dice in zip(members, (0.871, 0.8), strict=True)
    )
    plans = folders.plan("nnUNetPlans")
    chosen = Selection(folders.name, (0, 1), (), candidates, 0, True, 0.875, (), PostProcessing(), rules, plans)
    save_selection(chosen, folders.selection)


class Reader(HTMLParser):
    """A banal reader: text without styles, addresses, and whether elements are closed in order."""

    VOID = ("meta", "img", "br", "link", "path", "use", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self.addresses, self.open, self.tags, self.ids = [], [], [], [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> TaskFolders:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def report(folders) -> Reader:
    return Reader(write_report(folders, folders.results / "report.html", now=NOW).read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_takes_nothing_from_outside(report):
    assert report.open == []
    assert {"script", "link", "iframe"}.isdisjoint(report.tags)
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in report.addresses)


def test_every_link_of_the_navigation_leads_to_a_section(report):
    anchors = [a[1:] for a in report.addresses if re.fullmatch(r"#[a-z]+", a)]

    assert len(anchors) == 10 and set(anchors) <= set(report.ids)


def test_the_page_names_cases_labels_plan_and_reasons(report):
    for expected in ("MRI", "core", "rim", "4 of 4", "40 × 48 × 48 voxels", "What fits into memory."):
        assert expected in report.text


def test_text_from_files_is_escaped(report):
    assert "The median spacing <of all cases>." in report.text


def test_dice_in_the_page_is_the_mean_of_all_folds_cases(report, folders):
    found = []
    for case in load_task(folders.raw).cases:
        file = next(folders.model("nnUNetPlans", "3d_fullres").folder.glob(f"fold_*/validation/{case.id}.nii.gz"))
        a, b = read_labels(file).array == 1, read_labels(case.labels).array == 1
        found.append(2 * (a & b).sum() / (a.sum() + b.sum()))

    assert f"core {np.mean(found):.4f} {np.std(found):.3f} {np.median(found):.3f} {min(found):.3f} 4" in report.text


def test_the_overview_of_all_runs_is_named_after_what_it_shows(report):
    assert "Quick Dice of every epoch" in report.text and "Moving average of" not in report.text


def test_the_scores_of_each_model_are_shown_once(report):
    assert report.text.count("mean of classes") == 2


def test_surface_metrics_are_shown_when_they_were_measured(report):
    assert "HD95, mm" in report.text and "surface Dice at 1 mm" in report.text


def test_the_best_model_is_marked_and_post_processing_explained(folders):
    html = (folders.results / "report.html").read_text(encoding="utf-8")

    marked = re.findall(r'<tr class="best"><th>(.*?)</th><td class="number">(.*?)</td>', html)
    assert len(marked) == 1 and "3d_fullres" in marked[0][0] and marked[0][1] == "0.8710"
    assert "largest component of core + rim; it takes the Dice from 0.8710 to 0.8750" in html


def test_a_class_that_is_nowhere_leaves_the_best_dice_a_number(folders, tmp_path):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.raw.parent, tmp_path, dirs_exist_ok=True)
    task, nowhere = copied.task(900), Metrics(*[math.nan] * 8)
    scores = Scores(
        ((1,), (2,)), (CaseScores("a", (Metrics(0.9, *[0] * 7), nowhere), Path("a.nii.gz"), Path("r.nii.gz")),)
    )
    chosen = load_selection(task.selection)
    for folder in (chosen.best.folder, chosen.best.folder / "postprocessed"):
        save_scores(scores, folder / "summary.json")
    edit_json(task.selection, best_model_or_ensemble={
        **json.loads(task.selection.read_text())["best_model_or_ensemble"], "result_on_crossval_post_pp": math.nan
    })  # fmt: skip

    text = Reader(write_report(task, tmp_path / "r.html").read_text(encoding="utf-8")).text

    assert "0.900 best mean Dice" in text and "takes the Dice from 0.9000 to 0.9000" in text


def test_scores_on_cases_that_the_network_has_seen_are_told(folders, tmp_path):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.raw.parent, tmp_path, dirs_exist_ok=True)
    fold = copied.task(900).model("nnUNetPlans", "2d").fold(1)
    fold.checkpoint_final.touch()
    save_made_of(MadeOf(("a", "b"), ("b",), ()), fold)

    text = Reader(write_report(copied.task(900), tmp_path / "r.html").read_text(encoding="utf-8")).text

    assert text.count("Fold 1 was trained on 1 case that it validates with (b)") == 1


def test_a_damaged_note_of_what_a_fold_is_made_of_costs_a_remark_not_the_page(folders, tmp_path, caplog):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.raw.parent, tmp_path, dirs_exist_ok=True)
    fold = copied.task(900).model("nnUNetPlans", "2d").fold(1)
    fold.checkpoint_final.touch()
    fold.made_of.write_text("[")

    text = Reader(write_report(copied.task(900), tmp_path / "r.html").read_text(encoding="utf-8")).text

    assert "2d (nnUNetPlans)" in text and "made_of.json is not valid JSON" in caplog.text


def test_scores_of_the_fold_that_trained_on_every_case_are_told_once(folders, tmp_path):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.raw.parent, tmp_path, dirs_exist_ok=True)
    model = copied.task(900).model("nnUNetPlans", "2d")
    model.fold(1).folder.rename(model.fold("all").folder)

    text = Reader(write_report(copied.task(900), tmp_path / "r.html").read_text(encoding="utf-8")).text

    assert text.count("The fold 'all' trains on every case") == 1


def test_a_model_whose_validated_cases_are_empty_is_not_the_best(folders):
    undefined = Scores(((1,),), (CaseScores("a", (Metrics(*[math.nan] * 8),), Path("a.nii.gz"), Path("r.nii.gz")),))
    found = gather(folders)
    empty = TrainedModel(found.models[0].folders, (TrainedFold(found.models[0].folders.fold(0), (), undefined),))

    assert replace(found, models=(empty, found.models[1])).best_model is found.models[1]


def test_each_shown_case_has_a_picture_of_three_views(report):
    from PIL import Image

    pictures = [a for a in report.addresses if a.startswith("data:")]
    assert len(pictures) == 3
    for address in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
        assert image.width > 2 * image.height


def test_command_lines_and_date_are_given(report):
    assert "nnsegment predict -t Dataset900_Sample -c 2d -i IMAGES -o PREDICTIONS" in report.text
    assert "Made on 01 March 2024 at 12:30" in report.text


def test_a_task_without_plan_and_models_says_what_to_run(tmp_path):
    make_sample_task(tmp_path / "nnUNet_raw" / "Dataset900_Sample", n_cases=2, n_test=0)

    report = Reader(write_report(Workspace.at(tmp_path).task(900), tmp_path / "r.html").read_text(encoding="utf-8"))

    for verb in ("check", "fingerprint", "plan", "train", "validate", "best"):
        assert f"nnsegment {verb}" in report.text
    assert "img" not in report.tags and report.open == []


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((999.0, 1.0, 1.0), "2 cases, in the median 40 × 50 pixels (y × x: rows, columns)."),
        ((699.3, 0.5, 0.7), "2 cases, in the median 40 × 50 pixels of 0.5 × 0.7 mm (y × x: rows, columns)."),
    ],
)
def test_pictures_have_areas_and_no_thickness(spacing, said, tmp_path):
    write_dataset_json(tmp_path / "nnUNet_raw" / "Dataset901_Cells", ("grey",), LABELS, 2, ".png")
    folders = Workspace.at(tmp_path).task(901)
    shape, stats = (1, 40, 50), make_plan("any").intensities
    cases = tuple(CaseFacts(name, shape, shape, spacing, ((0, 1500), (1, 500)), ()) for name in "ab")
    save_fingerprint(Fingerprint((shape,) * 2, (spacing,) * 2, stats, 1.0, cases), folders.fingerprint)

    text = Reader(write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")).text

    assert said in text
    assert "median area, pixels" in text and "2 of 2 500" in text and " ml" not in text


def test_plans_of_pictures_tell_no_millimetres(tmp_path):
    write_dataset_json(tmp_path / "nnUNet_raw" / "Dataset901_Cells", ("grey",), LABELS, 2, ".png")
    folders = Workspace.at(tmp_path).task(901)
    for name in ("imagesTr/a_0000.png", "imagesTr/b_0000.png", "labelsTr/a.png", "labelsTr/b.png"):
        (folders.raw / name).parent.mkdir(exist_ok=True)
        (folders.raw / name).touch()
    task = pipeline.open_task(folders.raw)
    found = Fingerprint(((1, 400, 500),) * 2, ((999.0, 1.0, 1.0),) * 2, make_plan("any").intensities, 1.0)
    save_fingerprint(found, folders.fingerprint)
    plan = planned(task, found)
    save_plan(plan, folders.plan(plan.name))
    drawn = pipeline.diagram(task, "2d", tmp_path / "network.svg", tmp_path)

    text = Reader(write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")).text

    assert "Pictures have no voxel size, so their pixels are used as they are." in text
    assert "patch the network sees 448 × 512 pixels patches" in text
    assert " mm" not in text.partition("The plan")[2].partition("Training")[0]
    assert " mm" not in drawn.read_text(encoding="utf-8")


def test_findings_are_listed_the_worst_first(folders, tmp_path):
    findings = [
        Finding("warning", "head_001", "constant", "varied", "constant", "look at it"),
        Finding("error", "head_003", "grid", "same size", "<other>", "run check --fix"),
    ]
    text = Reader(write_report(folders, tmp_path / "r.html", findings=findings).read_text(encoding="utf-8")).text

    assert text.index("head_003 grid same size <other> run check --fix") < text.index("head_001 constant varied")


def test_a_model_without_its_images_is_still_reported(folders, tmp_path):
    moved = Workspace.at(tmp_path)
    shutil.copytree(folders.results, moved.results / folders.name)

    text = Reader(write_report(moved.task(900), tmp_path / "r.html").read_text(encoding="utf-8")).text

    assert "no longer in their folder" in text and "3d_fullres (nnUNetPlans)" in text and "core" in text


def test_scores_of_other_labels_cases_or_files_than_there_are_now_are_said_to_be_so(folders, tmp_path, report):
    shutil.copytree(folders.workspace.raw.parent, tmp_path, dirs_exist_ok=True)
    copied = Workspace.at(tmp_path).task(900)
    for part in ("imagesTr/head_001_0000", "labelsTr/head_001"):
        (copied.raw / f"{part}.nii.gz").unlink()
    later = time.time() + 60
    os.utime(copied.raw / "labelsTr" / "head_002.nii.gz", (later, later))
    for fold in (0, 1):
        copied.model("nnUNetPlans", "2d").fold(fold).checkpoint_final.touch()
    edit_json(copied.raw / "dataset.json", labels={"background": 0, "core": 2, "rim": 1})

    text = Reader(write_report(copied, tmp_path / "r.html").read_text(encoding="utf-8")).text

    said = (
        "trained and scored with other labels",
        "does not have any more (head_001)",
        "of 1 case (head_002) have another time or size than when a fold was trained: unless they were only copied",
    )
    assert [sentence for sentence in said if sentence in text] == [*said]
    assert not [sentence for sentence in said if sentence in report.text]


def test_a_missing_prediction_costs_one_picture_not_the_page(folders, tmp_path):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.results, copied.results)
    text = (copied.results / folders.name / MODEL / "fold_0/validation/summary.json").read_text()
    lost = text.replace(str(folders.workspace.results), "/nowhere").replace("head_001.nii", "lost.nii")
    (copied.results / folders.name / MODEL / "fold_0/validation/summary.json").write_text(lost)

    report = Reader(write_report(copied.task(900), tmp_path / "r.html").read_text(encoding="utf-8"))

    assert "the picture is left out" in report.text


def test_damaged_files_are_left_out_and_logged(folders, tmp_path, caplog):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.preprocessed, copied.preprocessed)
    shutil.copytree(folders.workspace.raw, copied.raw)
    copied.task(900).fingerprint.write_text("{")
    copied.task(900).plan("nnUNetPlans").write_text('{"dataset_name": 3}')

    text = Reader(write_report(copied.task(900), tmp_path / "r.html").read_text(encoding="utf-8")).text

    assert "There is no fingerprint yet" in text and "There is no plan yet" in text
    assert "is not valid JSON" in caplog.text and "no nnU-Net v2 plans file" in caplog.text


def test_names_are_shown_as_they_are_written(folders, tmp_path):
    copied = Workspace.at(tmp_path)
    shutil.copytree(folders.workspace.raw.parent, tmp_path, dirs_exist_ok=True)
    labels = {"background": 0, "$\\frac{a$ </text><script>": 1, "$x^$": 2}
    for file in tmp_path.rglob("dataset.json"):
        edit_json(file, labels=labels, channel_names={"0": "$\\undefined$"}, description="\x1b[2J\ud800 half")

    page = write_report(copied.task(900), tmp_path / "r.html").read_text(encoding="utf-8")

    report = Reader(page)
    assert "$\\frac{a$ </text><script>" in report.text and "$\\undefined$: intensities of the labels" in report.text
    assert r"\x1b[2J\ud800 half" in report.text and "\x1b" not in page and "script" not in report.tags


def test_nothing_to_report_is_said_in_a_sentence(tmp_path):
    (tmp_path / "nnUNet_preprocessed" / "Dataset007_Empty").mkdir(parents=True)

    with pytest.raises(TaskError, match="nothing to report"):
        write_report(Workspace.at(tmp_path).task(7), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_progress_counts_to_the_end(folders, tmp_path):
    seen = []
    write_report(folders, tmp_path / "r.html", lambda done, total, what: seen.append((done, total)))

    assert seen == [(n, seen[-1][1]) for n in range(len(seen))] and seen[-1][0] == seen[-1][1]


def scored(case_id: str, dice: float) -> CaseScores:
    return CaseScores(case_id, (Metrics(dice, 0, 0, 0, 0, 0, 0, 0),), Path(), Path())


def test_the_best_and_the_two_worst_cases_are_chosen_and_undefined_ones_left_out():
    cases = [scored(n, d) for n, d in (("a", 0.5), ("b", math.nan), ("c", 0.9), ("d", 0.1), ("e", 0.7))]

    assert [(kind, c.case_id) for kind, c in best_and_worst(cases)] == [
        ("best", "c"),
        ("worst", "d"),
        ("worst but 1", "a"),
    ]
    assert best_and_worst(cases[1:2]) == []
    assert [c.case_id for _, c in best_and_worst(cases[:1])] == ["a"]
