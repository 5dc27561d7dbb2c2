"""The grammar of the command line; standard library only, so that help answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from . import __version__
from .given import is_digits

PRESETS = ("default", "resenc-m", "resenc-l", "resenc-xl", "small")
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
_CHOICE = f"{', '.join(CONFIGURATIONS)}, or one of your own in the plans file"
TASK = "task: number (4), name (Hippocampus, Dataset004_Hippocampus) or folder"


GROUPS = {
    "the journey": ("convert", "check", "plan", "train", "best", "predict", "evaluate", "report"),
    "single steps of it": ("fingerprint", "preprocess", "validate", "ensemble", "postprocess"),
    "models": ("model", "diagram"),
    "this machine": ("doctor", "demo", "jobs"),
}
"""The commands in the order in which they are shown."""
_EXAMPLE = """\
example:
  nnsegment convert ~/data/Task04_Hippocampus
  nnsegment plan 4 --preset small
  nnsegment train 4 3d_fullres folds --time 15m
  nnsegment best 4
  nnsegment predict -t 4 -i new_images -o segmentations

'nnsegment help COMMAND' tells all about a command."""


class WrongUsage(Exception):
    """Arguments that the `parser` of a command cannot understand."""

    def __init__(self, parser: argparse.ArgumentParser, sentence: str) -> None:
        super().__init__(sentence)
        self.parser = parser


class _Parser(argparse.ArgumentParser):
    summary = ""
    """What a command does, for the list of commands."""

    def error(self, message: str) -> NoReturn:
        """Leave it to the command line to tell, in words or as JSON."""
        raise WrongUsage(self, message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `nnsegment`; it raises WrongUsage."""
    parser = _Parser(
        prog="nnsegment", usage="nnsegment [-h] [--version] COMMAND …", epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    # the list of commands is the description, which can be divided
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", prog="nnsegment", help=argparse.SUPPRESS)
    for define in (_data, _planning, _training, _selection, _prediction, _seeing):
        define(commands)
    parser.description = _overview(commands.choices)
    return parser


def _overview(commands: Mapping[str, _Parser]) -> str:
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<12} {commands[name].summary}" for name in names)])
        for title, names in GROUPS.items()
    ]
    return "\n\n".join(["From labelled images to a cross-validated segmentation model and its predictions.", *groups])


def _command(commands, name: str, text: str, more: str = "", *, workers: bool = True) -> argparse.ArgumentParser:
    """The parser of a command; all take `-j`, so that a script need not choose, even where it is not offered."""
    parser = commands.add_parser(name, description=f"{text[0].upper()}{text[1:]}. {more}".rstrip())
    parser.summary = text
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="folder of all data (default: nnUNet_raw … or ~/NNSegment)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "-j", "--workers", type=_positive, default=_cores(), metavar="N",
        help="parallel workers (default: one for each processor, at most 8)" if workers else argparse.SUPPRESS,
    )  # fmt: skip
    return parser


def _data(commands) -> None:
    convert = _command(commands, "convert", "make a task of a folder of images and labels")
    convert.add_argument(
        "source",
        type=Path,
        help="Decathlon, nnU-Net, TotalSegmentator, MONAI Label or DICOM folder, or a folder of images",
    )
    convert.add_argument(
        "--labels", type=Path, metavar="DIR", help="folder of labels, when the source holds images only"
    )
    convert.add_argument(
        "--channels", nargs="+", metavar="NAME", help="names of the channels, for plain folders (CT, T1, …)"
    )
    convert.add_argument(
        "--id", type=int, metavar="N", help="data set number (default: the source's, else the next free one from 501)"
    )
    convert.add_argument("--name", help="data set name, without the number (default: the source's)")
    convert.add_argument("--in-place", action="store_true", help="use the files where they are instead of copying them")
    convert.add_argument("--to", choices=("v1",), help="write the task SOURCE as a data set of nnU-Net v1 instead")
    convert.add_argument("-o", "--output", type=Path, metavar="DIR", help="with --to: where to put TaskXXX_Name")
    convert.add_argument(
        "--overlaps", choices=("order", "regions", "refuse"), default="order",
        help="segments that overlap: the later label wins (default), they become regions, or are refused",
    )  # fmt: skip
    check = _command(commands, "check", "find everything wrong with a task's files")
    check.add_argument("task", help=TASK)
    check.add_argument("--fix", action="store_true", help="mend what can be mended; originals are kept")


def _planning(commands) -> None:
    fingerprint = _command(commands, "fingerprint", "measure sizes, spacings and intensities of a task")
    fingerprint.add_argument("task", help=TASK)
    fingerprint.add_argument("--clean", action="store_true", help="measure again")
    plan = _command(commands, "plan", "fingerprint, plan and preprocess a task")
    plan.add_argument("task", help=TASK)
    plan.add_argument("-c", "--configurations", nargs="+", metavar="CONFIG", help=f"prepare only these: {_CHOICE}")
    plan.add_argument(
        "--preset",
        choices=PRESETS,
        default="default",
        help="how large the networks are (default: as nnU-Net plans them)",
    )
    plan.add_argument("--gpu-memory", type=float, metavar="GB", help="GPU memory to plan for (default: the preset's)")
    plan.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="target voxel size in mm (default: chosen from the data)",
    )
    plan.add_argument("-p", "--plans", metavar="NAME", help="name of the plans file (default: the preset's)")
    plan.add_argument("--check", action="store_true", help="check the files first")
    plan.add_argument("--clean", action="store_true", help="measure the fingerprint again")
    plan.add_argument(
        "--anew", action="store_true",
        help="begin again with all cases, new and corrected ones: fingerprint and folds, too; trained models are set aside",
    )  # fmt: skip
    plan.add_argument("--only", action="store_true", help="do not preprocess")
    preprocess = _command(commands, "preprocess", "prepare all cases for the planned configurations")
    preprocess.add_argument("task", help=TASK)
    preprocess.add_argument(
        "-c", "--configurations", nargs="+", metavar="CONFIG", help=f"only these (default: all planned): {_CHOICE}"
    )
    _plan_choice(preprocess)


def _training(commands) -> None:
    train = _command(
        commands,
        "train",
        "train one fold, or all of them, and validate it",
        "A fold that was trained before is trained again unless --resume is given; the run "
        "that was there is kept beside, in earlier_fold_N, unless it is unfinished and a finished one is kept there.",
    )
    _run_choice(train, "number, 'all' (train on everything) or 'folds' (each in turn)")
    length = train.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        type=_positive,
        metavar="N",
        help="length of the schedule (default: 1000, and 50 for the preset small)",
    )
    length.add_argument("--time", type=_seconds, metavar="30m", help="train so that the schedule ends after this time")
    train.add_argument("--device", metavar="D", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    train.add_argument(
        "--gpus",
        type=_positive,
        default=1,
        metavar="N",
        help="divide each batch among the first N GPUs of this machine (default: 1)",
    )
    train.add_argument(
        "--save-probabilities", "--npz", action="store_true", help="keep validation probabilities for ensembles"
    )
    train.add_argument("--resume", "-r", action="store_true", help="go on where the run stopped, or begin one")
    train.add_argument("--settings", type=Path, metavar="FILE", help="training settings as JSON")
    train.add_argument("--recipe", metavar="MODULE:FUNCTION", help="function that turns the settings into others")
    train.add_argument("--pretrained", type=Path, metavar="MODEL", help="checkpoint or model folder to start from")
    train.add_argument(
        "--seed", type=int, metavar="N", help="train another network: start of the random numbers (default 12345)"
    )
    validate = _command(commands, "validate", "predict and score the validation cases of a trained fold again")
    _run_choice(validate, "number, or 'folds' (every trained one), or 'all' (the one trained on everything)")
    validate.add_argument("--save-probabilities", "--npz", action="store_true", help="keep probabilities for ensembles")


def _selection(commands) -> None:
    best = _command(commands, "best", "find the best configuration or ensemble by cross-validation")
    best.add_argument("task", help=TASK)
    best.add_argument(
        "-c", "--configurations", nargs="+", metavar="CONFIG", help=f"only these (default: all trained): {_CHOICE}"
    )
    best.add_argument(
        "-f", "--folds", nargs="+", metavar="FOLD", help="folds to count and use (default: those trained)"
    )
    best.add_argument("--no-ensemble", action="store_true", help="compare single configurations only")
    _plan_choice(best)
    evaluate = _command(commands, "evaluate", "score predictions against references")
    evaluate.add_argument("references", type=Path, help="folder of reference labels")
    evaluate.add_argument("predictions", type=Path, help="folder of predictions; summary.json is written into it")
    evaluate.add_argument(
        "-l", "--labels", type=int, nargs="+", metavar="VALUE", help="label values, without dataset.json"
    )
    evaluate.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="tolerance of the surface Dice (default: 1)"
    )
    evaluate.add_argument("--chill", action="store_true", help="say nothing of references without a prediction")
    ensemble = _command(commands, "ensemble", "average the probabilities of several predictions")
    ensemble.add_argument(
        "-i", "--inputs", type=Path, nargs="+", required=True, metavar="DIR",
        help="folders of predictions made with --save-probabilities",
    )  # fmt: skip
    ensemble.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the label maps")
    ensemble.add_argument(
        "--save-probabilities", action="store_true", help="write the mean as CASE.npz beside each label map"
    )
    postprocess = _command(commands, "postprocess", "find or apply post-processing (largest components)")
    postprocess.add_argument("-i", "--input", type=Path, required=True, metavar="DIR", help="folder of predictions")
    postprocess.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the result")
    postprocess.add_argument("--rules", type=Path, metavar="FILE", help="postprocessing.json or .pkl to apply")
    postprocess.add_argument("--references", type=Path, metavar="DIR", help="references to find the rules with")


def _prediction(commands) -> None:
    predict = _command(commands, "predict", "segment images with a trained model", workers=False)
    predict.add_argument(
        "-i", "--input", type=Path, nargs="+", required=True, metavar="IN", help="folder, or one file per channel"
    )
    predict.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder, or file for a single image"
    )
    which = predict.add_mutually_exclusive_group(required=True)
    which.add_argument("-t", "--task", help=TASK)
    which.add_argument("-m", "--model", type=Path, help="model folder or zip")
    predict.add_argument("-c", "--configuration", metavar="CONFIG", help="default: what 'best' chose")
    predict.add_argument(
        "-f", "--folds", nargs="+", metavar="FOLD",
        help="default: all trained folds; in a cascade they apply to both stages",
    )  # fmt: skip
    predict.add_argument("--no-mirroring", action="store_true", help="faster: no test-time mirroring")
    predict.add_argument(
        "--step", type=float, default=0.5, help="step of the sliding window, as a part of the patch (default: 0.5)"
    )
    predict.add_argument(
        "--half",
        action="store_true",
        help="numbers of 16 bits: faster on processors with AMX (NVIDIA cards always do so)",
    )
    predict.add_argument("--save-probabilities", action="store_true", help="write CASE.npz beside each label map")
    predict.add_argument("--keep-existing", action="store_true", help="skip cases whose output exists")
    predict.add_argument(
        "--previous", "-prev_stage_predictions", type=Path, metavar="DIR",
        help="for a cascade: label maps of its first stage (default: predict them)",
    )  # fmt: skip
    predict.add_argument(
        "--device", default="auto", metavar="D", help="cuda, cuda:1, mps or cpu (default: the best there is)"
    )
    _plan_choice(predict)
    model = _command(
        commands,
        "model",
        "list, describe, export and import models",
        "A zip tells, as nnU-Net's does, the names of the cases that it was trained and scored with.",
        workers=False,
    )
    model.add_argument(
        "action", choices=("list", "info", "export", "import"), metavar="ACTION",
        help="list (of the workspace), info (what one takes, gives and is made of), export, import",
    )  # fmt: skip
    model.add_argument("what", nargs="?", help="task or model folder; for import a zip")
    model.add_argument("-o", "--output", type=Path, metavar="PATH", help="zip, or folder of networks, to write")
    model.add_argument(
        "--format",
        choices=("zip", "onnx", "torchscript"),
        default="zip",
        help="zip as nnU-Net's (default); onnx or torchscript: one network per fold with a JSON card",
    )
    model.add_argument("-c", "--configuration", metavar="CONFIG", help="describe or export only this configuration")
    model.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="export only these folds")


def _seeing(commands) -> None:
    diagram = _command(commands, "diagram", "draw a configuration's network", workers=False)
    diagram.add_argument("task", help=TASK)
    diagram.add_argument("configuration", metavar="CONFIG", help=_CHOICE)
    diagram.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.svg", help="picture to write: .svg, .png or .pdf"
    )
    _plan_choice(diagram)
    report = _command(commands, "report", "write one HTML page about a task and its models", workers=False)
    report.add_argument("task", help=TASK)
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE.html", help="page to write (default: report.html among the results)"
    )
    jobs = _command(commands, "jobs", "see, follow, stop and resume what runs in the background", workers=False)
    jobs.add_argument(
        "action", nargs="?", choices=("list", "follow", "stop", "resume"), default="list", metavar="ACTION",
        help="list (default), follow, stop or resume",
    )  # fmt: skip
    jobs.add_argument("job", nargs="?", help="name of the job or its beginning (default: the newest)")
    jobs.add_argument(
        "--grace", type=_seconds, default=60.0, metavar="60s", help="time for a clean stop (default: 60s)"
    )
    _command(commands, "doctor", "tell what works on this machine, and what would mend the rest", workers=False)
    demo = _command(commands, "demo", "the whole journey on a small sample task", workers=False)
    demo.add_argument("--data", type=Path, metavar="FOLDER", help="real data instead: anything 'convert' reads")
    demo.add_argument("--folder", type=Path, help="where to work (default: NNSegment-demo, here or in the workspace)")
    demo.add_argument("--time", type=_seconds, metavar="40s", help="training time of each fold (default: 75s)")


def _run_choice(parser, folds: str) -> None:
    parser.add_argument("task", help=TASK)
    parser.add_argument("configuration", metavar="CONFIG", help=_CHOICE)
    parser.add_argument("fold", metavar="FOLD", help=folds)
    _plan_choice(parser)


def _plan_choice(parser) -> None:
    parser.add_argument("-p", "--plans", metavar="NAME", help="plans file to use (default: the one made last)")
    parser.add_argument("--preset", choices=PRESETS, help="the plan made with this preset")


def _positive(text: str) -> int:
    value = int(text) if is_digits(text) else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return value


def _seconds(text: str) -> float:
    from .terminal import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cores() -> int:
    import os

    return min(8, os.cpu_count() or 1)
