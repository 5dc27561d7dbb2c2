"""The report's sections about the data and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..fingerprint import CaseFacts, Fingerprint
from ..grids.planes import is_plane
from ..integrity.findings import SEVERITIES, Finding
from ..labels import Label
from ..planning.parameters import count_parameters
from ..planning.plan import Configuration, Plan
from .charts import axes_figure, cases_a_line, intensity_figure
from .contents import Contents
from .diagram import configuration_figure
from .markup import (
    Markup,
    absent,
    definitions,
    element,
    figure,
    folded,
    joined,
    paragraph,
    row,
    section,
    swatch,
    table,
    text,
)
from .plots import inline_svg


def task_section(contents: Contents) -> Markup:
    """Channels, labels and how often they occur."""
    described = contents.task.description if contents.task else ""
    facts = contents.fingerprint.cases if contents.fingerprint else ()
    return section(
        "task",
        "The task",
        "What goes into the network and what it has to find.",
        paragraph(described) if described else "",
        element("h3", "Channels"),
        table(("number", "name"), list(enumerate(contents.channels)), numbers=False),
        element("h3", "Labels"),
        table(*_label_rows(contents, facts)),
        ""
        if contents.task
        else absent("The images are no longer in their folder; sections that need them are left out."),
    )


def findings_section(task_name: str, findings: Sequence[Finding] | None) -> Markup:
    """What the integrity check found, the worst first."""
    lead = "Missing files, wrong grids and odd labels, found before they cost training time."
    if findings is None:
        line = absent(f"The data were not checked for this report; run: nnsegment check {task_name}")
        return section("findings", "Integrity", lead, line)
    if not findings:
        return section("findings", "Integrity", lead, paragraph("Every case was checked, and nothing was found."))
    rows = [
        (element("span", f.severity, f.severity), f.case, f.check, f.expected, f.found, f.advice)
        for f in sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.case))
    ]
    return section(
        "findings",
        "Integrity",
        lead,
        table(("", "case", "check", "expected", "found", "what to do"), rows, numbers=False),
    )


def fingerprint_section(contents: Contents) -> Markup:
    """Sizes, spacings and intensities of the cases."""
    lead = "Sizes, voxel spacings and grey values of all cases: what the plan is made from."
    fingerprint = contents.fingerprint
    if fingerprint is None:
        line = absent(f"There is no fingerprint yet; run: nnsegment fingerprint {contents.folders.name}")
        return section("data", "The data", lead, line)
    return section(
        "data",
        "The data",
        lead,
        paragraph(_fingerprint_sentence(fingerprint)),
        row(*_grids(fingerprint)),
        *_intensities(contents.channels, fingerprint),
    )


def plan_section(contents: Contents) -> Markup:
    """Every plan as a table with its reasons and its networks."""
    lead = (
        "How images are prepared, and the network that fits them; every value follows from the data by nnU-Net's rules."
    )
    if not contents.plans:
        line = absent(f"There is no plan yet; run: nnsegment plan {contents.folders.name}")
        return section("plan", "The plan", lead, line)
    return section("plan", "The plan", lead, *(_plan(plan, contents) for plan in contents.plans))


def _label_rows(contents: Contents, facts: Sequence[CaseFacts]) -> tuple[tuple, list]:
    planes = all(is_plane(case.shape, case.spacing_mm) for case in facts)
    measure = "median area, pixels" if planes else "median volume, ml"
    header = ("label", "values") + (("cases with it", measure) if facts else ())
    sizes = [dict(case.label_voxels) if planes else _volumes_ml(case) for case in facts]
    return header, [_label_row(label, sizes) for label in contents.labels.foreground]


def _label_row(label: Label, per_case: Sequence[Mapping[int, float]]) -> tuple:
    """Name, values, and in how many cases a label is how large, in the unit of `per_case` (value → size)."""
    name = Markup(swatch(label.color) + text(label.name))
    values = "+".join(str(value) for value in label.values)
    if not per_case:
        return name, values
    present = [size for case in per_case if (size := sum(case.get(value, 0.0) for value in label.values)) > 0]
    return name, values, f"{len(present)} of {len(per_case)}", f"{np.median(present):.3g}" if present else "–"


def _volumes_ml(case: CaseFacts) -> dict[int, float]:
    """How much of each label value a case has."""
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    return {value: count * voxel_ml for value, count in case.label_voxels}


def _grids(fingerprint: Fingerprint) -> list[Markup]:
    """Charts of sizes and spacings: of planes in their two axes, of pictures without spacings, which they lack."""
    planes = fingerprint.are_planes
    shapes, spacings = np.array(fingerprint.shapes_after_crop)[:, planes:], _spacings_mm(fingerprint)
    sizes = axes_figure(shapes, "Size after cropping", "pixels" if planes else "voxels")
    charts = [figure(inline_svg(sizes, "Sizes of all cases"), "One dot per case; the bar is the median.")]
    if spacings is not None:
        title = "Pixel spacing" if planes else "Voxel spacing"
        drawn = inline_svg(axes_figure(spacings, title, "mm"), f"{title}s of all cases")
        charts.append(figure(drawn, "Differing spacings are resampled to the plan's."))
    return charts


def _spacings_mm(fingerprint: Fingerprint) -> np.ndarray | None:
    """A row for each case, along (z, y, x), or (y, x) of planes; None for pictures, all of whose pixels measure 1."""
    return None if fingerprint.are_pictures else np.array(fingerprint.spacings_mm)[:, fingerprint.are_planes :]


def _fingerprint_sentence(fingerprint: Fingerprint) -> str:
    planes, spacings = fingerprint.are_planes, _spacings_mm(fingerprint)
    size = _times(int(n) for n in np.median(fingerprint.shapes_after_crop, axis=0)[planes:])
    each = "" if spacings is None else f" of {_times(f'{s:.3g}' for s in np.median(spacings, axis=0))} mm"
    kept = fingerprint.median_relative_size_after_cropping
    cropping = f"; cropping to the non-zero part keeps {kept:.0%}" if kept < 0.995 else ""
    what, axes = ("pixels", "y × x: rows, columns") if planes else ("voxels", "z × y × x: slices, rows, columns")
    return f"{len(fingerprint.spacings_mm)} cases, in the median {size} {what}{each} ({axes}){cropping}."


def _intensities(channels: Sequence[str], fingerprint: Fingerprint) -> list[Markup]:
    found = []
    for number, name in enumerate(channels):
        drawn = intensity_figure(fingerprint.cases, number, name)
        if drawn:
            caption = _intensity_caption(len(fingerprint.cases))
            found.append(figure(inline_svg(drawn, f"Intensities of channel {name}"), caption))
    return [*found, _intensity_table(channels, fingerprint)]


def _intensity_caption(n_cases: int) -> str:
    shared = cases_a_line(n_cases)
    if shared == 1:
        return "Thin line: 0.5th to 99.5th percentile of the labelled voxels; thick line: middle half; dot: median."
    return (
        f"A line for {shared} cases each. Thin line: lowest 0.5th to highest 99.5th percentile of the labelled voxels; "
        "thick line: middle half; dot: median of the cases."
    )


def _intensity_table(channels: Sequence[str], fingerprint: Fingerprint) -> Markup:
    rows = [
        (name, *(f"{v:.4g}" for v in (s.mean, s.std, s.percentile_00_5, s.median, s.percentile_99_5)))
        for name, s in zip(channels, fingerprint.intensities, strict=False)
    ]
    return table(("labelled voxels of all cases", "mean", "std", "0.5 %", "median", "99.5 %"), rows)


def _plan(plan: Plan, contents: Contents) -> Markup:
    drawn = [_network(c, plan, contents, first=i == 0) for i, c in enumerate(plan.configurations)]
    reasons = definitions((_readable(key), why) for key, why in plan.reasons.items())
    return joined(
        [
            element("h3", plan.name),
            _configurations(plan, contents),
            folded(f"Why: the {len(plan.reasons)} decisions and their reasons", reasons)
            if plan.reasons
            else absent("No reasons were kept with this plan (it was made by another program)."),
            *drawn,
        ]
    )


def _configurations(plan: Plan, contents: Contents) -> Markup:
    columns = [_configuration(configuration, plan, contents) for configuration in plan.configurations]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    rows = [row for row in rows if set(row[1:]) != {"–"}]
    return table(("", *(c.name for c in plan.configurations)), rows)


def _configuration(c: Configuration, plan: Plan, contents: Contents) -> dict[str, str]:
    network = c.network
    parameters = count_parameters(network, len(contents.channels), contents.labels.n_outputs)
    unit = "pixels" if plan.is_of_pictures else "voxels"
    extent = f" ({_times(f'{n * s:.0f}' for n, s in zip(c.patch_size, c.spacing_mm, strict=True))} mm)"
    return {
        "voxel size": "–" if plan.is_of_pictures else f"{_times(f'{s:.3g}' for s in c.spacing_mm)} mm",
        "median image": f"{_times(round(n) for n in c.median_shape)} {unit}",
        "patch the network sees": f"{_times(c.patch_size)} {unit}{'' if plan.is_of_pictures else extent}",
        "patches per step": str(c.batch_size),
        "intensities": ", ".join(dict.fromkeys(scheme.removesuffix("Normalization") for scheme in c.normalization)),
        "stages": str(network.n_stages),
        "features": "–".join(str(f) for f in (network.features[0], network.features[-1])),
        "parameters": f"{parameters:,}".replace(",", "\u202f"),
        "takes the result of": c.previous_stage or "–",
    }


def _network(configuration: Configuration, plan: Plan, contents: Contents, first: bool) -> Markup:
    drawn = configuration_figure(configuration, contents.labels, len(contents.channels), in_mm=not plan.is_of_pictures)
    svg = figure(inline_svg(drawn, f"Network of {configuration.name}"))
    return svg if first else folded(f"The network of {configuration.name}", svg)


def _readable(key: str) -> str:
    return key.replace("_", " ") if not key.startswith(("2d", "3d")) else key


def _times(values) -> str:
    return " × ".join(str(v) for v in values)
