"""Small things that several sections do with widgets."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import qt
import slicer
from slicer.i18n import tr as _

AUTOMATIC = ""
MOST_COLUMNS = 4
"""A table with more columns scrolls."""
NAME_LETTERS, TITLE_LETTERS = 22, 12
"""What is shown of a name in the first column, and of a column's title."""
TYPING_MS = 600
"""How long a path that is typed rests before it is looked at."""


def load_section(path: str, parent_button):
    """The widget of a .ui file inside a section's button, and its children by name."""
    widget = slicer.util.loadUI(path)
    parent_button.layout().addWidget(widget)
    return widget, slicer.util.childWidgetVariables(widget)


def leave_scene(widget) -> None:
    """Let a widget and all in it observe the scene no longer, and tell nobody of that."""
    for child in slicer.util.findChildren(widget):
        if hasattr(child, "setMRMLScene"):
            child.blockSignals(True)
            child.setMRMLScene(None)


def devices() -> tuple[tuple[str, str], ...]:
    """(value of --device, text) of every choice."""
    return (
        (AUTOMATIC, _("Automatic")),
        ("cuda", _("Graphics card (CUDA)")),
        ("mps", _("Apple graphics (MPS)")),
        ("cpu", _("Processor (slow)")),
    )


def fill_devices(box) -> None:
    """Offer the devices in a combo box; `device_words` reads the choice."""
    for value, text in devices():
        box.addItem(text, value)


def device_words(box) -> tuple[str, ...]:
    """The option of the command line for the chosen device."""
    value = box.itemData(box.currentIndex)
    return ("--device", value) if value else ()


def option(name: str, value: str) -> tuple[str, ...]:
    """The words that give a value to an option; one that begins like an option itself is in one word with the name."""
    return (f"{name}={value}",) if value.startswith("-") else (name, value)


def connect_path(edit, receiver) -> None:
    """Call whenever a path changes: of one that is emptied, or that no name filter fits, a ctkPathLineEdit tells nobody."""
    edit.comboBox().lineEdit().connect("textChanged(QString)", receiver)


def resting(edit, take: Callable[[], None]):
    """A timer to start with every letter that is typed into a path line: `take` is called once the path rests.

    The Enter key calls it at once.
    """
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(TYPING_MS)
    timer.connect("timeout()", take)
    edit.comboBox().lineEdit().connect("returnPressed()", take)
    return timer


def is_typed(edit) -> bool:
    """Whether the text of a path line comes letter by letter, not from a dialog or from outside."""
    line = edit.comboBox().lineEdit()
    return line.modified or line.completer().popup().visible  # the arrow keys try the completions one by one


def fill_box(box, entries, keep: bool = True) -> None:
    """Put (value, text) entries into a combo box; the chosen value stays chosen when it is still there."""
    before = box.itemData(box.currentIndex) if keep and box.count else None
    blocked = box.blockSignals(True)
    box.clear()
    for value, text in entries:
        box.addItem(text, value)
    box.setCurrentIndex(next((n for n, (value, _text) in enumerate(entries) if value == before), 0))
    box.blockSignals(blocked)


def chosen(box):
    """The value of the chosen entry, or None."""
    return box.itemData(box.currentIndex) if box.count else None


def choose_value(box, value) -> None:
    """Choose the entry with this value; nothing happens when there is none."""
    index = box.findData(value)
    if index >= 0:
        box.setCurrentIndex(index)


def set_enabled(button, reason: str, tooltip: str) -> None:
    """Enable a button when there is no reason against it; a disabled one tells the reason."""
    button.enabled = not reason
    button.toolTip = tip(reason or tooltip)


def breakable(path) -> str:
    """A path for a label that wraps; Qt breaks lines after a slash, after a backslash only with this help."""
    return str(path).replace("\\", "\\\u200b")


def plain_label():
    """A label that shows every text as it is; Qt's own take what looks like HTML for it, and load its pictures."""
    label = qt.QLabel()
    label.textFormat = qt.Qt.PlainText
    return label


def beside_field(text: str) -> str:
    """A text for a label with a buddy as it is; such a label takes an & for the mark of a shortcut."""
    return text.replace("&", "&&")


def tip(text: str) -> str:
    """A tooltip that shows the text as it is; Qt has no tooltips of plain text."""
    if not {"<", "&"} & set(text):
        return text
    return f'<p style="white-space: pre-wrap">{escape(text, quote=False)}</p>'


def show_text(label, text: str) -> None:
    """A label that takes no space while it has nothing to say."""
    label.text = text
    label.setVisible(bool(text))


def fill_table(table, header, rows, bold_row: int = -1) -> None:
    """Put rows of texts into a table, sized to its content; the first column takes the space that is left.

    With many columns the first one keeps room for a name, and the table scrolls where the panel is too narrow.
    """
    table.clear()
    table.rowCount, table.columnCount = len(rows), len(header)
    for c, title in enumerate(header):
        table.setHorizontalHeaderItem(c, _title(title, shorten=c > 0))
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            table.setItem(r, c, _item(text, centred=c > 0, bold=r == bold_row))
    table.verticalHeader().hide()
    is_wide = len(header) > MOST_COLUMNS
    head = table.horizontalHeader()
    for column in range(len(header)):
        mode = qt.QHeaderView.Stretch if column == 0 and not is_wide else qt.QHeaderView.ResizeToContents
        head.setSectionResizeMode(column, mode)
    head.setStretchLastSection(is_wide)
    if is_wide:
        keep_room_for_name(table)
    table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAsNeeded if is_wide else qt.Qt.ScrollBarAlwaysOff)
    fit_height(table, with_scroll_bar=is_wide)


def keep_room_for_name(table) -> None:
    """The first column gets what its names need, up to a number of letters; longer ones end in dots."""
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Interactive)
    most = NAME_LETTERS * table.fontMetrics().averageCharWidth()
    table.setColumnWidth(0, min(max(table.sizeHintForColumn(0), most // 2), most))


def fit_height(table, most_rows: int = 8, with_scroll_bar: bool = False) -> None:
    """As high as its rows, up to a number of them, with room for a scroll bar below where there may be one."""
    table.resizeRowsToContents()
    rows = min(table.rowCount, most_rows)
    content = table.horizontalHeader().height + sum(table.rowHeight(row) for row in range(rows))
    bar = table.style().pixelMetric(qt.QStyle.PM_ScrollBarExtent) if with_scroll_bar else 0
    table.setFixedHeight(content + 2 * table.frameWidth + bar)


def copy_to_clipboard(text: str) -> None:
    """Put a text where the user can paste it from."""
    qt.QApplication.clipboard().setText(text)


def open_file(path) -> None:
    """Show a file with the program that the system has for it."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))


def _title(text: str, shorten: bool):
    """A column's title; the tooltip has the whole of a long one."""
    is_short = not shorten or len(text) <= TITLE_LETTERS
    item = qt.QTableWidgetItem(text if is_short else text[: TITLE_LETTERS - 1].rstrip() + "…")
    item.setToolTip(tip(text))
    return item


def _item(text: str, centred: bool, bold: bool):
    item = qt.QTableWidgetItem(str(text))
    item.setToolTip(tip(str(text)))
    if centred:
        item.setTextAlignment(qt.Qt.AlignCenter)
    if bold:
        font = item.font()
        font.setBold(True)
        item.setFont(font)
    return item
