"""The report's sections about the data and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..fingerprint import CaseFacts, Fingerprint
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
    sizes = axes_figure(fingerprint.shapes_after_crop, "Size after cropping", "voxels")
    spacings = axes_figure(fingerprint.spacings_mm, "Voxel spacing", "mm")
    return section(
        "data",
        "The data",
        lead,
        paragraph(_fingerprint_sentence(fingerprint)),
        row(
            figure(inline_svg(sizes, "Sizes of all cases"), "One dot per case; the bar is the median."),
            figure(
                inline_svg(spacings, "Voxel spacings of all cases"), "Differing spacings are resampled to the plan's."
            ),
        ),
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
    header = ("label", "values") + (("cases with it", "median volume, ml") if facts else ())
    volumes = [_volumes_ml(case) for case in facts]
    return header, [_label_row(label, volumes) for label in contents.labels.foreground]


def _label_row(label: Label, per_case: Sequence[Mapping[int, float]]) -> tuple:
    name = Markup(swatch(label.color) + text(label.name))
    values = "+".join(str(value) for value in label.values)
    if not per_case:
        return name, values
    volumes = [sum(case.get(value, 0.0) for value in label.values) for case in per_case]
    present = [volume for volume in volumes if volume > 0]
    return name, values, f"{len(present)} of {len(per_case)}", f"{np.median(present):.3g}" if present else "–"


def _volumes_ml(case: CaseFacts) -> dict[int, float]:
    """How much of each label value a case has."""
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    return {value: count * voxel_ml for value, count in case.label_voxels}


def _fingerprint_sentence(fingerprint: Fingerprint) -> str:
    size = _times(int(n) for n in np.median(fingerprint.shapes_after_crop, axis=0))
    spacing = _times(f"{s:.3g}" for s in np.median(fingerprint.spacings_mm, axis=0))
    kept = fingerprint.median_relative_size_after_cropping
    cropping = f"; cropping to the non-zero part keeps {kept:.0%}" if kept < 0.995 else ""
    return (
        f"{len(fingerprint.spacings_mm)} cases, in the median {size} voxels of {spacing} mm "
        f"(z × y × x: slices, rows, columns){cropping}."
    )


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
    drawn = [_network(c, contents, first=i == 0) for i, c in enumerate(plan.configurations)]
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
    columns = [_configuration(configuration, contents) for configuration in plan.configurations]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    rows = [row for row in rows if set(row[1:]) != {"–"}]
    return table(("", *(c.name for c in plan.configurations)), rows)


def _configuration(c: Configuration, contents: Contents) -> dict[str, str]:
    network = c.network
    parameters = count_parameters(network, len(contents.channels), contents.labels.n_outputs)
    millimetres = _times(f"{n * s:.0f}" for n, s in zip(c.patch_size, c.spacing_mm, strict=True))
    return {
        "voxel size": f"{_times(f'{s:.3g}' for s in c.spacing_mm)} mm",
        "median image": f"{_times(round(n) for n in c.median_shape)} voxels",
        "patch the network sees": f"{_times(c.patch_size)} voxels ({millimetres} mm)",
        "patches per step": str(c.batch_size),
        "intensities": ", ".join(dict.fromkeys(scheme.removesuffix("Normalization") for scheme in c.normalization)),
        "stages": str(network.n_stages),
        "features": "–".join(str(f) for f in (network.features[0], network.features[-1])),
        "parameters": f"{parameters:,}".replace(",", "\u202f"),
        "takes the result of": c.previous_stage or "–",
    }


def _network(configuration: Configuration, contents: Contents, first: bool) -> Markup:
    drawn = configuration_figure(configuration, contents.labels, len(contents.channels))
    svg = figure(inline_svg(drawn, f"Network of {configuration.name}"))
    return svg if first else folded(f"The network of {configuration.name}", svg)


def _readable(key: str) -> str:
    return key.replace("_", " ") if not key.startswith(("2d", "3d")) else key


def _times(values) -> str:
    return " × ".join(str(v) for v in values)
