"""The command line: one subcommand per verb, each parses its arguments and calls the verb.

Exit codes: 0 done, 1 the work failed or what it needs is not trained yet, 2 wrong usage or bad input, 130 stopped by the
user.
Heavy modules are imported inside the subcommands, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .arguments import WrongUsage, build_parser
from .errors import NNSegmentError, RunError, counted
from .escapes import printable
from .machine.launch import JOB_VARIABLE
from .machine.stopping import interrupted_by_terminations
from .packages import PACKAGES, missing_package
from .terminal import (
    STOPPED,
    Outcome,
    Terminal,
    Unread,
    forget_unread_output,
    json_text,
    replace_unknown_characters,
)

_NOBODY_READS = (errno.EPIPE, errno.EINVAL)
"""What a pipe says whose reader has gone, on Windows the second."""


class Stop(Exception):
    """Work ended on the user's request; what was done so far is safe."""


class Rejected(Exception):
    """The input was examined and cannot be used; what was found is a result all the same."""

    def __init__(self, sentence: str, code: int, result: dict) -> None:
        super().__init__(sentence)
        self.code, self.result = code, result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    replace_unknown_characters()
    parser, argv = build_parser(), list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["help"]:
        argv = [*(word for word in argv if word != "help"), "--help"]
    try:
        args = parser.parse_args(argv)
    except WrongUsage as wrong:
        if "--json" in argv:
            print(json_text({"error": str(wrong), "exit_code": 2}))
        argparse.ArgumentParser.error(wrong.parser, str(wrong))  # usage and sentence, and the end with code 2
    if not args.command:
        parser.print_help()
        return 0
    job = os.environ.pop(JOB_VARIABLE, None)  # what this process starts in turn is no job
    if job:
        from .jobs.reporting import run_as_job

        return run_as_job(Path(job), lambda reporter: _run(args, reporter))
    with interrupted_by_terminations():
        code = _run(args, Terminal()).code
    forget_unread_output()
    return code


def _run(args: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Do what the arguments ask for and say how it went."""
    try:
        result, text = COMMANDS[args.command](args, terminal)
    except NNSegmentError as error:
        return _fail(args, str(error), error.exit_code)
    except Rejected as rejected:
        return _fail(args, str(rejected), rejected.code, rejected.result)
    except (Stop, KeyboardInterrupt) as stop:
        return _fail(args, str(stop) or "Stopped; what was finished is kept.", STOPPED)
    except ModuleNotFoundError as missing:
        if missing.name not in PACKAGES:  # a recipe's own
            raise
        return _fail(args, str(missing_package(missing.name)), 1)
    except MemoryError:
        return _fail(args, "The machine's memory did not suffice; close other programs or use fewer --workers.", 1)
    except OSError as error:
        return _fail(
            args, f"{error.filename or 'A file'}: {error.strerror or error}; check the path and its permissions.", 1
        )
    finally:
        terminal.close()
    try:
        _show(args, result, text)
    except OSError as error:
        if error.errno in _NOBODY_READS:  # whoever did has seen enough
            return Outcome(0, result)
        return _fail(args, f"The work is done, but its result cannot be written out ({error.strerror or error}).", 1)
    return Outcome(0, result)


def _show(args: argparse.Namespace, result: object, text: str) -> None:
    if args.json:
        print(json_text(result))
    elif text:
        print(printable(str(text)))
    if sys.stdout is not None:
        sys.stdout.flush()


def _fail(args: argparse.Namespace, sentence: str, code: int, result: dict | None = None) -> Outcome:
    with contextlib.suppress(OSError):  # nobody may be reading any more
        if args.json:
            print(json_text((result or {}) | {"error": sentence, "exit_code": code}))
    Unread(sys.stderr).write(f"nnsegment: {printable(sentence)}\n")
    return Outcome(code, result, sentence=sentence)


def _convert(args, terminal):
    from . import conversion, pipeline

    if args.to:
        exported = conversion.export_task(
            str(args.source), args.output, args.workspace, to=args.to, workers=args.workers, progress=terminal
        )
        return conversion.describe_export(exported)
    task = pipeline.convert(
        args.source, args.workspace, labels=args.labels, channels=args.channels or (), id=args.id, name=args.name, in_place=args.in_place,
        overlaps=args.overlaps, workers=args.workers, progress=terminal,
    )  # fmt: skip
    return conversion.describe_conversion(task)


def _check(args, terminal):
    from . import pipeline
    from .integrity.table import findings_table, require_no_errors

    findings = pipeline.check(args.task, args.workspace, fix=args.fix, workers=args.workers, progress=terminal)
    table = findings_table(findings)
    try:
        require_no_errors(findings)
    except NNSegmentError as error:
        if not args.json:
            print(printable(table))
        raise Rejected(str(error), error.exit_code, {"findings": findings}) from error
    return {"findings": findings}, table


def _fingerprint(args, terminal):
    from . import pipeline

    found = pipeline.extract_fingerprint(
        args.task, args.workspace, clean=args.clean, workers=args.workers, progress=terminal, say=terminal.say
    )
    return (
        found,
        f"Fingerprint of {counted(len(found.spacings_mm), 'case')}: {pipeline.folders_of(args.task, args.workspace).fingerprint}",
    )


def _plan(args, terminal):
    from . import pipeline
    from .answers import plan_text
    from .integrity.table import require_no_errors
    from .lookup import plans_name_of, require_planned

    wanted = args.configurations or ()
    if wanted:  # looked at before the task is measured, which may take long
        name = plans_name_of(args.plans, None if args.plans else args.preset)
        require_planned(pipeline.folders_of(args.task, args.workspace), wanted, name)
    if args.check:
        require_no_errors(pipeline.check(args.task, args.workspace, workers=args.workers, progress=terminal))
    made = pipeline.plan(
        args.task, args.workspace, preset=args.preset, gpu_memory_gb=args.gpu_memory, spacing_mm=args.spacing,
        name=args.plans, clean=args.clean, anew=args.anew, workers=args.workers, progress=terminal, say=terminal.say,
    )  # fmt: skip
    wanted = [made.configuration(c).name for c in wanted]
    if not args.only:
        pipeline.preprocess(
            args.task, args.workspace, configurations=wanted, plans=made.name, workers=args.workers, progress=terminal,
            say=terminal.say,
        )  # fmt: skip
    return made, plan_text(made, pipeline.folders_of(args.task, args.workspace).plan(made.name))


def _preprocess(args, terminal):
    from . import pipeline

    done = pipeline.preprocess(
        args.task, args.workspace, configurations=args.configurations or (), plans=args.plans, preset=args.preset,
        workers=args.workers, progress=terminal, say=terminal.say,
    )  # fmt: skip
    lines = [f"{d.configuration}: {d.cases} cases in {d.folder} ({d.computed} computed now)" for d in done]
    return done, "\n".join(lines)


def _train(args, terminal):
    from . import pipeline
    from .answers import run_result, run_text
    from .progress import part_of
    from .run import load_settings
    from .training.budget import require_nothing_new, settings_from_arguments

    folders = pipeline.folders_of(args.task, args.workspace)
    plan = pipeline.plan_of(folders, args.plans, args.preset)
    runs, folds = [], _folds(args.fold, folders, terminal)
    for number, fold in enumerate(folds, start=1):
        folder = folders.model(plan.name, args.configuration).fold(fold)
        stored = load_settings(folder.settings) if args.resume and folder.settings.is_file() else None
        if args.resume and stored is None and folder.checkpoint_final.is_file():
            require_nothing_new(args, folder.folder)
        settings = settings_from_arguments(args, plan, stored)
        terminal.watch(folder.events)
        run = pipeline.train(
            args.task, args.configuration, fold, args.workspace, settings=settings, plans=plan.name,
            resume=args.resume, pretrained=args.pretrained, save_probabilities=args.save_probabilities,
            gpus=args.gpus, workers=args.workers, say=terminal.say,
            progress=terminal if len(folds) == 1 else part_of(terminal, f"fold {number} of {len(folds)}"),
        )  # fmt: skip
        if not run.finished:
            raise Stop(f"Stopped; the model so far is in {folder.folder}, go on with --resume.")
        runs.append(run)
    return [run_result(run) for run in runs], "\n".join(run_text(run) for run in runs)


def _folds(fold: str, folders, terminal) -> list:
    from . import pipeline

    if fold != "folds":
        return [fold]
    return list(range(len(pipeline.folds_of(folders, pipeline.open_task(folders.raw), terminal.say))))


def _validate(args, terminal):
    from . import pipeline
    from .progress import part_of

    several = args.fold == "folds"
    folds = _trained_folds(args, terminal) if several else [args.fold]
    results, texts = [], []
    for number, fold in enumerate(folds, start=1):
        scores = pipeline.validate(
            args.task, args.configuration, fold, args.workspace, plans=args.plans, preset=args.preset,
            save_probabilities=args.save_probabilities, workers=args.workers,
            progress=part_of(terminal, f"fold {number} of {len(folds)}") if several else terminal,
        )  # fmt: skip
        results.append({"fold": fold, "scores": scores} if several else scores)
        texts.append(f"Fold {fold}\n{scores.table()}" if several else scores.table())
    return results if several else results[0], "\n\n".join(texts)


def _trained_folds(args, terminal) -> list[int]:
    """The listed folds of a configuration that have weights; raises RunError when none has."""
    from . import pipeline

    folders = pipeline.folders_of(args.task, args.workspace)
    model = folders.model(pipeline.plan_of(folders, args.plans, args.preset).name, args.configuration)
    found = [fold for fold in _folds("folds", folders, terminal) if model.fold(fold).has_weights]
    if not found:
        raise RunError(
            f"{folders.name} has no trained fold of {args.configuration} with {model.plans_name}; run "
            f"'{model.command('train', 'folds')}'."
        )
    return found


def _best(args, terminal):
    from . import pipeline

    selection = pipeline.best(
        args.task, args.workspace, configurations=args.configurations or (), plans=args.plans, preset=args.preset,
        folds=args.folds, ensembles=not args.no_ensemble, workers=args.workers, progress=terminal, say=terminal.say,
    )  # fmt: skip
    return selection, selection.table()


def _predict(args, terminal):
    from . import pipeline

    done = pipeline.predict(
        args.input, args.output, args.workspace, task=args.task, model=args.model, configuration=args.configuration,
        plans=args.plans, preset=args.preset, folds=args.folds, mirroring=not args.no_mirroring, step=args.step,
        half=args.half, save_probabilities=args.save_probabilities, overwrite=not args.keep_existing,
        previous=args.previous, device=args.device, progress=terminal, say=terminal.say,
    )  # fmt: skip
    return {"cases": done, "output": args.output}, f"Predicted {counted(len(done), 'case')} into {args.output}"


def _evaluate(args, terminal):
    from . import results
    from .machine.memory import unsaid

    scores = results.evaluate(
        args.predictions,
        args.references,
        args.labels,
        tolerance_mm=args.tolerance,
        workers=args.workers,
        progress=terminal,
        say=unsaid if args.chill else terminal.say,
    )
    return scores, scores.table()


def _ensemble(args, terminal):
    from . import results

    done = results.ensemble(
        args.inputs, args.output, save_probabilities=args.save_probabilities, workers=args.workers, progress=terminal
    )
    return {"cases": done, "output": args.output}, f"Averaged {counted(len(done), 'case')} into {args.output}"


def _postprocess(args, terminal):
    from . import results

    steps = results.postprocess(
        args.input, args.output, rules=args.rules, references=args.references, workers=args.workers, progress=terminal
    )
    return steps, steps.describe()


def _report(args, terminal):
    from . import results

    path = results.write_report(args.task, args.output, args.workspace, terminal)
    return {"report": path}, f"Report: {path}"


def _diagram(args, terminal):
    from . import results

    path = results.diagram(
        args.task, args.configuration, args.output, args.workspace, plans=args.plans, preset=args.preset
    )
    return {"diagram": path}, f"Diagram: {path}"


def _model(args, terminal):
    from . import exchange
    from .answers import models_text
    from .errors import SettingsError

    if args.action == "list":
        models = exchange.list_models(args.workspace)
        return models, models_text(models)
    if not args.what:
        raise SettingsError(f"'nnsegment model {args.action}' needs a task, a model folder or a zip.")
    if args.action == "import":
        taken = exchange.import_model(args.what, args.workspace)
        return taken, f"Imported:\n{models_text(taken)}"
    if args.action == "info":
        info = exchange.describe_model(args.what, args.configuration, args.workspace)
        return info, info.text()
    target = exchange.export_model(
        args.what, args.output, args.format, configuration=args.configuration, folds=args.folds,
        workspace=args.workspace, progress=terminal,
    )  # fmt: skip
    return {args.format: target}, f"Exported to {target}"


def _jobs(args, terminal):
    from .jobs import commands as job_commands

    return getattr(job_commands, f"{args.action}_command")(args, terminal)


def _doctor(args, terminal):
    from .doctor import examine

    findings = examine(args.workspace)
    return {"checks": findings}, "\n".join(str(f) for f in findings)


def _demo(args, terminal):
    from .demo import run_demo

    folder = args.folder or (args.workspace or Path()) / "NNSegment-demo"  # beside whatever is there already
    outcome = run_demo(folder, data=args.data, seconds=args.time, say=terminal.say, progress=terminal)
    return outcome, outcome.text()


COMMANDS: dict[str, Callable] = {
    "convert": _convert,
    "check": _check,
    "fingerprint": _fingerprint,
    "plan": _plan,
    "preprocess": _preprocess,
    "train": _train,
    "validate": _validate,
    "best": _best,
    "predict": _predict,
    "evaluate": _evaluate,
    "ensemble": _ensemble,
    "postprocess": _postprocess,
    "report": _report,
    "diagram": _diagram,
    "model": _model,
    "jobs": _jobs,
    "doctor": _doctor,
    "demo": _demo,
}
