"""A folder that cannot be the workspace is told in a sentence, and no data go anywhere else unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from finished_runs import NAME, make_job, make_task

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"


@pytest.fixture
def panel(bench, root):
    root.mkdir()
    panel = bench.open_module(MODULE)
    panel.choose("workspaceEdit", root)
    yield panel
    panel.close()


def write(panel, text: str, key=None) -> None:
    """Write a path letter by letter, and press a key."""
    from PySide6 import QtTest

    line = panel["workspaceEdit"].comboBox().lineEdit()
    line.selectAll()
    QtTest.QTest.keyClicks(line, text)
    if key is not None:
        QtTest.QTest.keyClick(line, key)


def test_a_path_that_leads_nowhere_is_told_and_the_open_workspace_is_shown_again(panel, root, tmp_path):
    panel.choose("workspaceEdit", tmp_path / "no" / "such folder")

    assert panel["statusLabel"].text == f"{tmp_path / 'no'} is not there; {root} stays open."
    assert panel["workspaceEdit"].currentPath == str(root)
    assert panel.widget.context.workspace_path == root


def test_the_home_of_a_user_who_is_not_there_is_told(panel, root):
    panel.choose("workspaceEdit", "~nobody-here/workspace")

    assert panel["statusLabel"].text == f"{Path('~nobody-here').absolute()} is not there; {root} stays open."
    assert panel.widget.context.workspace_path == root


def test_a_path_that_is_typed_stays_in_the_line_until_it_is_complete(panel, root, tmp_path):
    from PySide6 import QtCore

    wrong = str(tmp_path / "no" / "such folder")

    write(panel, wrong)
    panel.wait_until(lambda: "stays open" in panel["statusLabel"].text, 10, "the sentence about the path")
    resting = panel["workspaceEdit"].currentPath
    write(panel, wrong, QtCore.Qt.Key_Return)

    assert resting == wrong
    assert panel["workspaceEdit"].currentPath == str(root)


def test_a_click_that_ends_the_typing_is_meant_for_what_was_there(panel, root, tmp_path):
    job = make_job(root, ("plan", "501"))
    panel.widget.context.poll()
    (tmp_path / "other").mkdir()

    panel["workspaceEdit"].comboBox().lineEdit().setFocus()
    write(panel, str(tmp_path / "other"))
    panel.click("workStopButton")

    assert job.folder.stop.exists()
    assert panel.widget.context.workspace_path == tmp_path / "other"


def test_a_file_is_refused_as_a_workspace(panel, root, tmp_path):
    (tmp_path / "notes.txt").write_text("no folder")

    panel.choose("workspaceEdit", tmp_path / "notes.txt")
    panel.widget.context.poll()

    assert panel["statusLabel"].text == (
        f"The workspace {tmp_path / 'notes.txt'} cannot be read (Not a directory); choose another folder."
    )
    assert panel.widget.context.workspace_path == root


@pytest.mark.parametrize("drive", ["is away", "holds a file of this name"])
def test_the_panel_opens_where_the_workspace_of_last_time_cannot_be_used(bench, root, tmp_path, drive):
    import slicer

    saved = tmp_path / "drive" / "workspace"
    slicer.app.userSettings().setValue("NNSegment/Workspace", str(saved))
    if drive != "is away":
        saved.parent.mkdir()
        saved.write_text("no folder")

    panel = bench.open_module(MODULE)
    told = panel["statusLabel"].text
    panel.choose("workspaceEdit", root)
    opened = panel.widget.context.workspace_path
    panel.close()

    assert told == (
        f"{saved.parent} is not there; choose a folder for the workspace."
        if drive == "is away"
        else f"The workspace {saved} cannot be read (Not a directory); choose another folder."
    )
    assert opened == root


def test_a_workspace_that_may_not_be_read_is_told_before_and_while_it_is_open(bench, panel, root):
    make_task(root)
    panel.widget.head.refresh_tasks()
    panel.choose("taskCombo", NAME)
    sentence, told = f"The workspace {root} cannot be read (Permission denied); choose another folder.", []
    root.chmod(0)
    try:
        if os.access(root, os.R_OK):
            pytest.skip("this user may read everything")
        context = panel.widget.context
        for step in (context.poll, context.plan_changed.emit, lambda: panel.choose("taskCombo", "New task …")):
            step()
            told.append(panel["statusLabel"].text)
        panel.widget.cleanup()
        late = bench.open_module(MODULE)
        told.append(late["statusLabel"].text)
        late.close()
    finally:
        root.chmod(0o755)

    assert told == ["", sentence, sentence, sentence]
