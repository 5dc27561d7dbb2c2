"""The table of a task's cases: each with its state, the reason for it, and a button that mends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _

from .widgets import fit_height, keep_room_for_name, tip

OK, WARNING, ERROR, UNKNOWN = "ok", "warning", "error", "unknown"
MOST_LETTERS = 70
_ORDER = (ERROR, WARNING, UNKNOWN, OK)
_ICONS = {
    OK: qt.QStyle.SP_DialogApplyButton,
    WARNING: qt.QStyle.SP_MessageBoxWarning,
    ERROR: qt.QStyle.SP_MessageBoxCritical,
}


@dataclass(frozen=True)
class CaseRow:
    """One line of the table; an empty id stands for the task as a whole."""

    id: str
    state: str
    reason: str = ""
    advice: str = ""
    fixable: bool = False


def case_rows(case_ids: Sequence[str], findings: Sequence | None) -> list[CaseRow]:
    """A row per case, and one for the task when something is wrong with it; None as findings: not checked yet."""
    found: dict[str, list] = {}
    for finding in findings or ():
        found.setdefault(finding.case, []).append(finding)
    whole = [""] if found.get("") else []
    clean = CaseRow("", UNKNOWN if findings is None else OK)
    rows = [_row(case_id, found.get(case_id, ()), clean) for case_id in (*whole, *case_ids)]
    return sorted(rows, key=lambda row: (bool(row.id), _ORDER.index(row.state)))


def _row(case_id: str, findings: Sequence, clean: CaseRow) -> CaseRow:
    """The worst of what was found decides; sentences about all of it."""
    bad = [finding for finding in findings if not finding.mended]
    if not bad:
        return CaseRow(case_id, clean.state, "; ".join(finding.found for finding in findings))
    state = ERROR if any(finding.severity == ERROR for finding in bad) else WARNING
    return CaseRow(
        case_id,
        state,
        "; ".join(map(_reason, bad)),
        "\n".join(_in_full(finding) for finding in bad),
        any(finding.fixable for finding in bad),
    )


def _reason(finding) -> str:
    """What is wrong, in a few words; grids are told by how far they are apart."""
    what, apart = finding.check, finding.found.rpartition(", ")[2]
    if apart.endswith("apart"):
        return _("{what} differs ({how})").format(what=what, how=apart)
    return f"{what}: {finding.found}"


def _in_full(finding) -> str:
    text = _("{what}: expected {expected}, found {found}; {advice}.")
    return text.format(
        what=finding.check, expected=finding.expected, found=finding.found, advice=finding.advice.rstrip(".")
    )


class CaseTable:
    """Shows rows in a QTableWidget."""

    def __init__(self, table, fix: Callable[[], None]) -> None:
        self._table, self._fix = table, fix
        table.verticalHeader().hide()
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)  # the reasons wrap instead
        header = table.horizontalHeader()
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)

    def show(self, rows: Sequence[CaseRow]) -> None:
        """Put the rows into the table."""
        table = self._table
        table.setRowCount(0)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            table.setItem(number, 0, _name_cell(row))
            table.setItem(number, 1, _state_cell(row))
            if row.fixable:
                table.setCellWidget(number, 2, self._fix_button(number))
        keep_room_for_name(table)
        fit_height(table, 7)

    def set_fixing(self, reason: str) -> None:
        """Disable the buttons with a reason, or enable them with an empty one."""
        for row in range(self._table.rowCount):
            button = self._table.cellWidget(row, 2)
            if button is not None:
                button.enabled = not reason
                button.toolTip = tip(reason or _fix_tip())

    def _fix_button(self, row: int):
        button = qt.QToolButton()
        button.text = _("Fix")
        button.setObjectName(f"fixButton{row}")
        button.toolTip = _fix_tip()
        button.connect("clicked()", self._fix)
        return button


def _shortened(text: str) -> str:
    """Two or three lines of the table; the tooltip has the whole."""
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1].rstrip() + "…"


def _fix_tip() -> str:
    return _("Mend this, and whatever else can be mended without asking you. The original files are kept.")


def _name_cell(row: CaseRow):
    item = qt.QTableWidgetItem(row.id or _("whole task"))
    item.setToolTip(tip("\n".join(text for text in (row.id, row.advice) if text)))
    return item


def _cell(text: str, row: CaseRow):
    item = qt.QTableWidgetItem(text)
    item.setToolTip(tip(row.advice))
    return item


def _state_cell(row: CaseRow):
    texts = {OK: _("ok"), UNKNOWN: _("not checked yet")}
    item = _cell(texts.get(row.state) or _shortened(row.reason), row)
    if row.state in _ICONS:
        item.setIcon(slicer.app.style().standardIcon(_ICONS[row.state]))
    item.setData(qt.Qt.UserRole, row.state)
    return item
