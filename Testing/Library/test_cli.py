"""The command line without any work: what it offers, refuses and prints."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import NNSegmentLib as nns
from NNSegmentLib import cli, demo, pipeline
from NNSegmentLib.arguments import WrongUsage, build_parser
from NNSegmentLib.cli import main
from NNSegmentLib.errors import RunError
from NNSegmentLib.folders import Workspace
from NNSegmentLib.scores import Scores

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def task(tmp_path):
    """The folders of a task that was neither planned nor trained."""
    workspace = Workspace.at(tmp_path)
    (workspace.raw / "Dataset501_Tiny").mkdir(parents=True)
    return workspace.task(501)


@pytest.mark.parametrize("fails", [False, True])
def test_characters_that_the_output_lacks_are_replaced(monkeypatch, fails):
    def tell(args, terminal):
        if fails:
            raise RunError("Grüße ← →")
        return None, "Grüße ← →"

    streams = {name: io.TextIOWrapper(io.BytesIO(), "cp1252", "strict", "") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setitem(cli.COMMANDS, "doctor", tell)

    assert main(["doctor"]) == int(fails)

    for stream in streams.values():
        stream.flush()
    written = b"".join(stream.buffer.getvalue() for stream in streams.values())
    assert written == ("nnsegment: " * fails + "Grüße ? ?\n").encode("cp1252")


def test_output_without_an_encoding_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda args, terminal: (None, "2d ← best"))

    assert main(["doctor"]) == 0

    assert sys.stdout.getvalue() == "2d ← best\n"


def test_all_trained_folds_are_validated_in_turn(task, monkeypatch, capsys):
    for fold in (0, 2):
        weights = task.model("nnUNetPlans", "2d").fold(fold).checkpoint_final
        weights.parent.mkdir(parents=True)
        weights.touch()
    seen = validations(monkeypatch)

    assert main(["validate", "501", "2d", "folds", "--json", "--workspace", str(task.workspace.raw.parent)]) == 0

    assert seen == [0, 2]
    assert [entry["fold"] for entry in json.loads(capsys.readouterr().out)["result"]] == [0, 2]
    assert main(["validate", "501", "2d", "folds", "--workspace", str(task.workspace.raw.parent)]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Fold")] == ["Fold 0", "Fold 2"]


def test_without_a_trained_fold_there_is_nothing_to_validate(task, monkeypatch, capsys):
    seen = validations(monkeypatch)

    assert main(["validate", "501", "2d", "folds", "--workspace", str(task.workspace.raw.parent)]) == 1

    assert seen == []
    assert "no trained fold of 2d with nnUNetPlans; run 'nnsegment train" in capsys.readouterr().err


def validations(monkeypatch) -> list:
    """Stand-ins for a planned task with three folds; the list fills with the folds that are validated."""
    seen = []
    monkeypatch.setattr(pipeline, "plan_of", lambda *_: SimpleNamespace(name="nnUNetPlans"))
    monkeypatch.setattr(pipeline, "open_task", lambda *_: None)
    monkeypatch.setattr(pipeline, "folds_of", lambda *_: (None,) * 3)
    monkeypatch.setattr(pipeline, "validate", lambda t, c, fold, *_, **__: seen.append(fold) or Scores((), ()))
    return seen


@pytest.mark.parametrize("words", [("export", "501"), ("export", "501", "--format", "onnx"), ("info", "501")])
def test_a_task_without_a_model_has_none_to_show_or_give_away(task, capsys, words):
    assert main(["model", *words, "--workspace", str(task.workspace.raw.parent)]) == 1

    assert capsys.readouterr().err == (
        "nnsegment: Dataset501_Tiny has no trained model yet; train one with 'nnsegment train'.\n"
    )


@pytest.mark.parametrize("ends", [RunError("the layer \x1b[2J"), None])
def test_what_a_command_says_is_not_obeyed_by_the_terminal(monkeypatch, capsys, ends):
    def command(args, terminal):
        if ends:
            raise ends
        return {}, "the layer \x1b[2J"

    monkeypatch.setitem(cli.COMMANDS, "doctor", command)

    main(["doctor"])

    said = "".join(capsys.readouterr())
    assert "the layer \\x1b[2J" in said and "\x1b" not in said


def test_a_training_is_given_one_length():
    train = ["train", "4", "2d", "0"]

    with pytest.raises(WrongUsage, match="--epochs: not allowed with argument --time"):
        build_parser().parse_args([*train, "--time", "1h", "--epochs", "20"])
    assert build_parser().parse_args([*train, "--time", "1h", "--resume"]).time == 3600.0
    assert build_parser().parse_args([*train, "--epochs", "20", "--resume"]).epochs == 20


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "1.5"])
def test_workers_are_a_whole_number(number):
    with pytest.raises(WrongUsage, match="argument -j/--workers: expected a whole number from 1, found"):
        build_parser().parse_args(["check", "4", f"-j{number}"])


@pytest.mark.parametrize(
    "words", [("train", "4", "2d", "0", "--time", "30"), ("demo", "--time", "75"), ("jobs", "stop", "--grace", "5")]
)
def test_a_number_without_its_unit_is_no_time(words):
    with pytest.raises(WrongUsage, match=f"{words[-2]}: a time is written with its unit, .*, found '{words[-1]}'"):
        build_parser().parse_args(words)


@pytest.mark.parametrize(
    "words", [("predict", "-i", "a", "-o", "b", "-t", "4"), ("demo",), ("jobs",), ("doctor",), ("report", "4")]
)
def test_workers_are_taken_but_not_offered_where_there_are_none(words, capsys):
    assert build_parser().parse_args([*words, "-j", "2"]).workers == 2

    with pytest.raises(SystemExit):
        build_parser().parse_args([words[0], "--help"])
    assert "--workers" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ([], "NNSegment-demo"),
        (["--workspace", "data"], "data/NNSegment-demo"),
        (["--workspace", "data", "--folder", "mine"], "mine"),
    ],
)
def test_the_demo_has_a_folder_of_its_own(monkeypatch, words, place):
    """It takes the first task it finds there, which must not be one of the user's."""
    places = []
    monkeypatch.setattr(demo, "run_demo", lambda folder, **_: places.append(folder) or SimpleNamespace(text=str))

    assert main(["demo", *words]) == 0
    assert places == [Path(place)]


MODELS = [sys.executable, "-m", "NNSegmentLib", "model", "list", "--json"]


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path):
    work = subprocess.Popen(
        [*MODELS, "--workspace", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    work.stdout.close()

    said = work.stderr.read()
    work.stderr.close()

    assert (work.wait(), said) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_result_that_cannot_be_written_out_is_told(tmp_path):
    with open("/dev/full", "w") as full:
        work = subprocess.run([*MODELS, "--workspace", tmp_path], stdout=full, stderr=subprocess.PIPE, cwd=ROOT)

    assert work.returncode == 1
    assert work.stderr.decode() == (
        "nnsegment: The work is done, but its result cannot be written out (No space left on device).\n"
    )


def test_every_word_of_every_command_is_explained():
    (commands,) = build_parser()._subparsers._group_actions

    silent = [
        (name, action.dest)
        for name, parser in commands.choices.items()
        for action in parser._actions
        if not action.help
    ]

    assert silent == []
    assert f"(default: {demo.FOLD_SECONDS:g}s)" in commands.choices["demo"].format_help()
    assert "train on everything" not in commands.choices["validate"].format_help()


def test_what_is_taken_where_nothing_is_said_is_told():
    (commands,) = build_parser()._subparsers._group_actions

    silent = [
        (name, action.dest)
        for name, parser in commands.choices.items()
        for action in parser._actions
        if action.default not in (None, False, "==SUPPRESS==") and "default" not in action.help
        if action.help != "==SUPPRESS=="
    ]

    assert silent == []


def printed(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_version_is_told(capsys):
    assert printed(capsys, "--version") == f"nnsegment {nns.__version__}\n"


def test_help_is_a_command_too(capsys):
    assert printed(capsys, "help") == printed(capsys, "help", "help") == printed(capsys, "--help")
    assert printed(capsys, "help", "train") == printed(capsys, "train", "--help")


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_command_is_described_in_sentences(capsys, command):
    description = printed(capsys, "help", command).split("\n\n")[1]

    assert description[0].isupper() and description.endswith(".") and ".." not in description


def test_the_list_of_commands_is_complete_and_begins_with_the_journey(capsys):
    listed = re.findall(r"^  (\w+) +\S", printed(capsys, "--help").partition("options:")[0], re.M)

    assert listed[:5] == ["convert", "check", "plan", "train", "best"]
    assert sorted(listed) == sorted(cli.COMMANDS)


def test_the_help_of_train_says_what_becomes_of_an_earlier_run(capsys):
    words = " ".join(printed(capsys, "train", "--help").split())

    assert (
        "is trained again unless --resume is given; the run that was there is kept beside, in earlier_fold_N, " in words
    )
