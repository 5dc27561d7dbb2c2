"""Finding models wherever the user points, and archives that try to write elsewhere. No torch."""

from __future__ import annotations

import json
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from NNSegmentLib import folders
from NNSegmentLib.errors import ModelError, NNSegmentError
from NNSegmentLib.exchange import import_model
from NNSegmentLib.model import load_model, loading, require_supported_trainer, version_1
from NNSegmentLib.model.archive import unpack
from NNSegmentLib.model.card import read_card
from NNSegmentLib.planning.plan import Configuration, IntensityStats, NetworkSpec, Plan, save_plan

NETWORK = NetworkSpec("PlainConvUNet", (4, 8), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)), (1, 1), (1,))
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1},
    "numTraining": 5,
    "file_ending": ".nii.gz",
}
STAGES = {"3d_lowres": {"next_stage": "3d_cascade_fullres"}, "3d_cascade_fullres": {"previous_stage": "3d_lowres"}}


def configuration(name: str, **stage) -> Configuration:
    shape = (16, 16, 16)
    return Configuration(
        name, f"data_{name}", 2, shape, shape, (1.0, 1.0, 1.0), ("CT",), (False,), NETWORK, False, **stage
    )


def write_model(dataset: Path, name: str, files=("fold_0/checkpoint_final.pth",), plans="nnUNetPlans") -> Path:
    names = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
    made = tuple(configuration(n, **STAGES.get(n, {})) for n in names)
    stats = (IntensityStats(0.0, 1.0, -1.0, 1.0, 0.0, -1.0, 1.0),)
    folder = dataset / f"nnUNetTrainer__{plans}__{name}"
    save_plan(Plan("Dataset001_A", plans, (0, 1, 2), made, stats, (1.0,) * 3, (16,) * 3), folder / "plans.json")
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"weights")
    return folder


@pytest.fixture
def dataset(tmp_path) -> Path:
    return tmp_path / "nnUNet_results" / "Dataset001_A"


def folds(model) -> list:
    return [member.fold for member in model.members]


def test_a_model_is_found_from_every_depth(dataset, tmp_path):
    folder = write_model(dataset, "3d_fullres", [f"fold_{n}/checkpoint_final.pth" for n in (0, 1, 10, 2)])

    for place in (tmp_path, dataset.parent, dataset, folder, str(folder)):
        found = load_model(place)
        assert (found.folder, found.configurations, folds(found)) == (folder, ("3d_fullres",), [0, 1, 2, 10])
    assert folds(load_model(folder / "fold_1")) == [1]
    assert folds(load_model(folder / "fold_2" / "checkpoint_final.pth")) == [2]
    assert (found.channels, found.file_ending, found.label_set.n_outputs) == (("CT",), ".nii.gz", 2)


def test_finished_folds_go_before_unfinished_ones(dataset):
    folder = write_model(dataset, "2d", ["fold_0/checkpoint_final.pth", "fold_1/checkpoint_best.pth"])

    assert folds(load_model(folder)) == [0]
    assert [m.checkpoint.name for m in load_model(folder, folds=[0, 1]).members] == [
        "checkpoint_final.pth",
        "checkpoint_best.pth",
    ]
    assert folds(load_model(folder, checkpoint="checkpoint_best.pth")) == [1]


def test_without_a_finished_fold_the_best_then_the_latest_is_taken(dataset):
    folder = write_model(dataset, "2d", ["fold_0/checkpoint_latest.pth"])
    assert load_model(folder).members[0].checkpoint.name == "checkpoint_latest.pth"

    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"")
    assert load_model(folder).members[0].checkpoint.name == "checkpoint_best.pth"


def test_the_fold_trained_on_everything_is_used_when_it_is_alone_or_asked_for(dataset):
    folder = write_model(dataset, "2d", ["fold_all/checkpoint_final.pth"])
    assert folds(load_model(folder)) == ["all"]

    write_model(dataset, "2d", ["fold_3/checkpoint_final.pth"])
    assert folds(load_model(folder)) == [3]
    assert folds(load_model(folder, folds=["all"])) == ["all"]


def test_a_missing_fold_is_named_with_those_there(dataset):
    folder = write_model(dataset, "2d")
    (folder / "fold_3").mkdir()  # nothing was trained there

    with pytest.raises(ModelError, match="for fold 4; it has the folds 0;"):
        load_model(folder, folds=[4])


def test_several_configurations_need_a_choice(dataset):
    for name in ("2d", "3d_fullres"):
        write_model(dataset, name)

    with pytest.raises(ModelError, match="several models .*choose a configuration"):
        load_model(dataset)
    assert load_model(dataset, "2d").configurations == ("2d",)
    with pytest.raises(ModelError, match="no trained configuration 3d_lowres"):
        load_model(dataset, "3d_lowres")


def test_several_data_sets_need_a_choice(tmp_path):
    for name in ("Dataset001_A", "Dataset002_B"):
        write_model(tmp_path / name, "2d")

    with pytest.raises(ModelError, match="several data sets"):
        load_model(tmp_path)


def test_a_cascade_knows_its_first_stage(dataset):
    write_model(dataset, "3d_lowres", ["fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth"])
    write_model(dataset, "3d_cascade_fullres")

    part = load_model(dataset).parts[0]

    assert part.configuration.name == "3d_cascade_fullres"
    assert [m.fold for m in part.previous.members] == [0, 1]
    assert load_model(dataset, "3d_lowres").parts[0].previous is None


@pytest.mark.parametrize(
    ("asked", "earlier", "lacking"),
    [(None, [0, 1, 2], ()), ([1], [1], ()), ([2, 0], [2, 0], ()), ([3], [0, 1, 2], ("3",)), (["all"], [0, 1, 2], ())],
)
def test_both_stages_of_a_cascade_have_the_folds_that_are_asked_for(dataset, asked, earlier, lacking):
    """Another fold of the earlier stage has seen the cases that were held out."""
    write_model(dataset, "3d_lowres", [f"fold_{n}/checkpoint_final.pth" for n in range(3)])
    write_model(dataset, "3d_cascade_fullres", [f"fold_{n}/checkpoint_final.pth" for n in (0, 1, 2, 3, "all")])

    part = load_model(dataset, "3d_cascade_fullres", folds=asked).parts[0]

    assert ([m.fold for m in part.previous.members], part.lacking) == (earlier, lacking)


def test_the_fold_of_a_cascade_that_is_pointed_at_is_that_of_its_earlier_stage(dataset):
    for name in ("3d_lowres", "3d_cascade_fullres"):
        folder = write_model(dataset, name, [f"fold_{n}/checkpoint_final.pth" for n in (0, 1, "all")])

    for fold in (1, "all"):
        assert [m.fold for m in load_model(folder / f"fold_{fold}").parts[0].previous.members] == [fold]


def selection(dataset: Path, names, postprocessing="") -> None:
    chosen = [{"trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans", "configuration": n} for n in names]
    best = {"selected_model_or_models": chosen, "postprocessing_file": postprocessing}
    (dataset / "inference_information.json").write_text(json.dumps({"folds": [0], "best_model_or_ensemble": best}))


def test_what_was_selected_is_taken_with_its_post_processing(dataset):
    folders = [
        write_model(dataset, n, [f"fold_{k}/checkpoint_final.pth" for k in (0, 1)]) for n in ("2d", "3d_fullres")
    ]
    selection(dataset, ["2d", "3d_fullres"], "/elsewhere/Dataset001_A/ensembles/e/postprocessing.pkl")
    (dataset / "ensembles" / "e").mkdir(parents=True)
    (dataset / "ensembles" / "e" / "postprocessing.json").write_text("{}")

    model = load_model(dataset)

    assert model.configurations == ("2d", "3d_fullres")
    assert folds(model) == [0, 0]
    assert model.postprocessing == dataset / "ensembles" / "e" / "postprocessing.json"
    assert load_model(dataset, postprocess=False).postprocessing is None
    assert load_model(folders[0]).configurations == ("2d",)
    assert load_model(dataset, "3d_fullres").postprocessing is None


def test_a_data_set_that_was_renamed_keeps_its_post_processing(dataset):
    folder = write_model(dataset, "2d")
    rules = folder / "crossval_results_folds_0" / "postprocessing.json"
    rules.parent.mkdir()
    rules.write_text("{}")
    selection(
        dataset, ["2d"], f"/data/nnUNet_results/Dataset009_Before/{rules.relative_to(dataset).with_suffix('.pkl')}"
    )

    assert load_model(dataset).postprocessing == rules


def test_a_selection_without_its_post_processing_is_refused(dataset):
    write_model(dataset, "2d")
    write_model(dataset, "3d_fullres")
    selection(dataset, ["2d"], "/elsewhere/Dataset001_A/nnUNetTrainer__nnUNetPlans__2d/crossval/postprocessing.pkl")

    with pytest.raises(
        ModelError, match=r"crossval.postprocessing\.pkl, which is missing; run 'nnsegment best .*' again"
    ):
        load_model(dataset)
    assert load_model(dataset, "2d").postprocessing is None
    assert load_model(dataset, postprocess=False).configurations == ("2d",)


@pytest.mark.parametrize("file", ["", "/elsewhere/Dataset002_B/ensembles/e/postprocessing.pkl"])
def test_a_selection_that_names_no_post_processing_of_this_data_set_is_taken_without(dataset, file):
    write_model(dataset, "2d")
    selection(dataset, ["2d"], file)

    assert load_model(dataset).postprocessing is None


@pytest.mark.parametrize("name", ["../2d", "3d_lowres", "/etc", ""])
def test_a_selection_of_models_that_are_not_there_is_refused(dataset, name):
    write_model(dataset, "2d")
    selection(dataset, [name])

    with pytest.raises(ModelError, match="run 'nnsegment best .*' again"):
        load_model(dataset)


def test_a_selection_that_repeats_a_model_is_refused(dataset):
    write_model(dataset, "2d")
    selection(dataset, ["2d"] * 1000)

    with pytest.raises(ModelError, match="the same model more than once"):
        load_model(dataset)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"folds": 3, "best_model_or_ensemble": {}}', '"text"'])
def test_a_damaged_selection_is_refused_in_one_sentence(dataset, content):
    write_model(dataset, "2d")
    (dataset / "inference_information.json").write_text(content)

    with pytest.raises(ModelError):
        load_model(dataset)


@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"labels": {"background": 0}}',
        "[" * 10**5,
        '{"a":' * 10**5,
        "[" + "9" * 10**4 + "]",
    ],
    ids=range(9),
)
def test_damaged_descriptions_are_refused_in_one_sentence(dataset, file, content):
    folder = write_model(dataset, "2d")
    (folder / file).write_text(content)

    with pytest.raises(ModelError) as refused:
        load_model(folder)

    assert "\n" not in str(refused.value)


def test_folders_without_a_model_say_what_was_expected(tmp_path):
    with pytest.raises(ModelError, match="expected plans.json"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="found nothing of that kind"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("ending", ["", ".zip"])
def test_a_text_that_is_too_long_for_a_path_is_refused_in_one_sentence(ending):
    with pytest.raises(ModelError, match="cannot be read .*; check its permissions, or choose another"):
        read_card("/" + "a" * 300 + ending)


def test_a_folder_that_may_not_be_read_hides_no_model_beside_it(dataset, tmp_path, monkeypatch):
    folder, locked = write_model(dataset, "2d"), tmp_path / "lost+found"
    locked.mkdir()

    def visible_to_us(path, pattern=""):
        if path == locked and not pattern:
            raise PermissionError(13, "Permission denied", str(path))
        return folders.visible(path, pattern)

    for module in (loading, version_1):
        monkeypatch.setattr(module, "visible", visible_to_us)

    assert load_model(tmp_path).folder == folder
    with pytest.raises(ModelError, match="lost.found cannot be read .Permission denied"):
        load_model(locked)
    (folder / "plans.json").unlink()
    with pytest.raises(ModelError, match="holds no model"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["dataset.json", "plans.json"])
def test_a_file_of_the_folder_stands_for_the_model(dataset, name):
    folder = write_model(dataset, "2d")

    assert load_model(folder / name).folder == folder


def test_a_folder_of_many_data_sets_names_a_few(tmp_path):
    for n in range(8):
        write_model(tmp_path / f"Dataset{n:03d}_A", "2d")

    with pytest.raises(ModelError, match=r"\(Dataset000_A, .*, Dataset004_A and 3 more\); pick the folder of one"):
        load_model(tmp_path)


def test_a_renamed_folder_needs_the_configuration(dataset):
    folder = write_model(dataset, "2d").rename(dataset / "my model")

    with pytest.raises(ModelError, match="does not tell the configuration"):
        load_model(folder)
    assert load_model(folder, "2d").configurations == ("2d",)


def test_another_configuration_than_the_folders_is_not_taken_for_it(dataset):
    folder = write_model(dataset, "2d").rename(dataset / "nnUNetTrainer__nnUNetPlans__2d_mine")

    for place in (folder, dataset):
        with pytest.raises(ModelError, match="has no trained configuration 2d; it has .*2d_mine"):
            load_model(place, "2d")


@pytest.mark.parametrize(
    "name",
    [
        *("nnUNetTrainer", "nnUNetTrainer_1epoch", "nnUNetTrainer_8000epochs_NoMirroring", "nnUNetTrainerNoMirroring"),
        *("nnUNetTrainer_onlyMirror01_DASegOrd0", "nnUNetTrainerDA5_10epochs", "nnUNetTrainerAdan1en1"),
        *("nnUNetTrainerTopk10LossLS01", "nnUNetTrainer_probabilisticOversampling_033", "nnUNet_Trainer_BS8"),
    ],
)
def test_trainers_with_the_plans_network_are_known(name):
    require_supported_trainer(name, "here")


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerBN", "nnUNet_Primus_M_Trainer", "nnUNetTrainerUMambaBot", "", "os.system"]
)
def test_other_trainers_are_refused_by_name(name):
    with pytest.raises(ModelError, match=repr(name)):
        require_supported_trainer(name, "here")


@pytest.mark.parametrize(
    ("known", "name"),
    [
        (loading._KNOWN_TRAINER, "nnUNetTrainer" + "_probabilisticOversampling_12epochs" * 60),
        (version_1._KNOWN_TRAINER, "nnUNetTrainerV2" + "_shorter_lowerLR" * 60),
    ],
)
def test_a_name_that_could_be_read_in_many_ways_is_read_in_one(known, name):
    assert known.match(name)
    assert not known.match(name + "!")  # after trying all ways


def test_a_trainer_is_not_called_by_a_book():
    with pytest.raises(ModelError, match="was trained by 'nnUNetTrainer_1epoch_1"):
        require_supported_trainer("nnUNetTrainer" + "_1epoch" * 1000, "here")


def test_a_zip_of_a_results_folder_is_a_model(dataset, tmp_path):
    folder = write_model(dataset, "2d")
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(dataset.parent))

    found = load_model(tmp_path / "model.zip")

    assert found.configurations == ("2d",)
    assert found.members[0].checkpoint.read_bytes() == b"weights"


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


HOSTILE = {
    "parent": [(member("../escaped"), b"x")],
    "deep parent": [(member("a/b/../../../escaped"), b"x")],
    "absolute": [(member("/tmp/escaped-by-zip"), b"x")],
    "drive": [(member("C:escaped"), b"x")],
    "backslashes": [(member("..\\escaped"), b"x")],
    "link": [(member("link", stat.S_IFLNK | 0o777), b"/etc"), (member("link/escaped"), b"x")],
    "pipe": [(member("pipe", stat.S_IFIFO | 0o644), b"")],
    "device": [(member("device", stat.S_IFCHR | 0o644), b"")],
    "twice": [(member("a"), b"x"), (member("a"), b"y")],
    "twice in other case": [(member("a"), b"x"), (member("A"), b"y")],
    "file as folder": [(member("a"), b"x"), (member("a/b"), b"y")],
    "file as folder in another spelling": [(member("ä"), b"x"), (member("A\u0308/b"), b"y")],
    "bomb": [(member("zeros"), b"\0" * 60_000_000)],
    **{
        f"name {name!a}": [(member(name), b"x")]
        for name in (
            "a\nb",
            "\x1b[31mred",
            "gnp\u202e",
            "CON",
            "a/nul.pth",
            "a./b",
            "a ",
            "/".join("a" * 21),
            "ä" * 128,
        )
    },
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_archives_write_nothing(tmp_path, name):
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for info, content in [(member("good"), b"x"), *HOSTILE[name]]:
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)

    with pytest.raises(NNSegmentError) as refused:
        unpack(tmp_path / "model.zip", tmp_path / "inside" / "target")

    assert "\n" not in str(refused.value)
    assert not (tmp_path / "inside" / "target").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"model.zip", "inside"}
    assert not Path("/tmp/escaped-by-zip").exists()


def test_one_letter_of_two_spellings_is_one_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("plän", b"x")
        archive.writestr("pla\u0308n", b"x")

    with pytest.raises(ModelError, match="same file twice"):
        unpack(tmp_path / "model.zip", tmp_path / "target")


def archive_of(path: Path, n: int) -> Path:
    """A zip of `n` files, none of which has any bytes of its own."""
    entry = struct.Struct("<4sHHHHHHIIIHHHHHII")
    names = [b"%07d" % k for k in range(n)]
    listed = b"".join(
        entry.pack(b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name for name in names
    )
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, n % 65536, n % 65536, len(listed), len(local), 0)
    path.write_bytes(local + listed + end)
    return path


@pytest.mark.parametrize(
    ("n", "sentence"), [(20_001, "holds 20001 files, a model at most"), (90_000, "which no model has")]
)
def test_an_archive_of_endless_files_is_not_even_listed(tmp_path, n, sentence):
    archive = archive_of(tmp_path / "model.zip", n)

    for read in (read_card, load_model, lambda path: unpack(path, tmp_path / "target")):
        with pytest.raises(ModelError, match=sentence):
            read(archive)


def test_an_archive_larger_than_stated_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("a", b"x" * 1000)

    with pytest.raises(ModelError, match="at most"):
        unpack(tmp_path / "model.zip", tmp_path / "target", max_bytes=999)
    unpack(tmp_path / "model.zip", tmp_path / "target", max_bytes=1000)
    assert (tmp_path / "target" / "a").stat().st_size == 1000


def lying_size(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 24 : start + 28] = struct.pack("<I", 10)
    path.write_bytes(content)


def flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lying_size,
        flipped_bit,
        lambda p: p.write_bytes(p.read_bytes()[:50]),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("no zip"),
        Path.unlink,
    ],
)
def test_damaged_archives_leave_nothing_behind(tmp_path, damage):
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(range(256)) * 100)
    damage(tmp_path / "model.zip")

    with pytest.raises(ModelError):
        unpack(tmp_path / "model.zip", tmp_path / "target")

    assert {p.name for p in tmp_path.iterdir()} <= {"model.zip"}


def replaced(content: bytes, head: bytes, at: int, value: bytes) -> bytes:
    """The bytes with a field of each of the zip's records of one kind changed."""
    parts = content.split(head)
    return head.join([parts[0], *(p[: at - 4] + value + p[at - 4 + len(value) :] for p in parts[1:])])


def of_method(value: bytes, bits: bytes = b"\0\0"):
    def change(content: bytes) -> bytes:
        for head, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            content = replaced(content, head, at, bits + value)
        return content

    return change


def of_other_bytes(content: bytes) -> bytes:
    start = content.index(b"dataset.json") + len(b"dataset.json")
    return content[:start] + b"Z" * 40 + content[start + 40 :]


@pytest.mark.parametrize(
    ("method", "damage"),
    [
        (zipfile.ZIP_LZMA, of_other_bytes),
        (zipfile.ZIP_BZIP2, of_other_bytes),
        (zipfile.ZIP_DEFLATED, of_other_bytes),
        (zipfile.ZIP_STORED, of_method(b"\x63\0")),
        (zipfile.ZIP_STORED, of_method(b"\0\0", b"\1\0")),
    ],
    ids=["lzma", "bz2", "deflate", "unknown", "encrypted"],
)
def test_whatever_is_wrong_with_a_zip_is_said_in_one_sentence(tmp_path, method, damage):
    with zipfile.ZipFile(tmp_path / "good.zip", "w", method) as archive:
        archive.writestr("D/M/dataset.json", json.dumps({"channel_names": list(range(999))}))
        archive.writestr("D/M/plans.json", "{}")
    (tmp_path / "model.zip").write_bytes(damage((tmp_path / "good.zip").read_bytes()))

    for read in (read_card, load_model, lambda path: import_model(path, tmp_path / "w")):
        with pytest.raises(ModelError, match=r"model\.zip cannot be read \(.*; it is damaged, encrypted or no zip"):
            read(tmp_path / "model.zip")


def test_a_card_without_end_is_said_in_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("D/M/dataset.json", "[" * 200_000)

    with pytest.raises(ModelError, match=r"D/M/dataset\.json in .* is nested too deeply"):
        read_card(tmp_path / "model.zip")
