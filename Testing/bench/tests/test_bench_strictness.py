"""The bench refuses what Slicer does not have, and knows what it has."""

from __future__ import annotations

import pytest


@pytest.fixture
def selector(bench):
    import slicer

    made = slicer.qMRMLNodeComboBox()
    made.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    made.noneEnabled = True
    made.setMRMLScene(slicer.mrmlScene)
    return made


@pytest.fixture
def section(bench):
    import ctk

    return ctk.ctkCollapsibleButton()


@pytest.mark.parametrize("name", ["qMRMLNodeSelector", "qSlicerNothing", "ctkNothing", "anything"])
def test_slicer_has_no_class_of_an_invented_name(bench, name):
    import ctk
    import slicer

    for module in (slicer, ctk):
        with pytest.raises(AttributeError):
            getattr(module, name)


def test_qt_has_no_class_enumeration_or_value_of_an_invented_name(bench):
    import qt

    for read in (lambda: qt.QPushButon, lambda: qt.Qt.Chequed, lambda: qt.QSizePolicy.Expandingly):
        with pytest.raises(AttributeError):
            read()


def test_unknown_attributes_of_widgets_cannot_be_read(selector, section):
    import qt

    for widget in (selector, section, qt.QPushButton()):
        with pytest.raises(AttributeError, match="has no attribute named 'currentNodes'"):
            widget.currentNodes


def test_new_attributes_on_cpp_objects_are_refused(selector, section):
    import qt

    for widget in (selector, section, qt.QPushButton(), qt.QTimer()):
        with pytest.raises(AttributeError, match="creating new attributes on C\\+\\+ objects is not allowed"):
            widget.myState = 1


def test_python_subclasses_may_have_attributes_of_their_own(bench):
    import qt
    import slicer

    class Button(qt.QPushButton):
        pass

    class Widget(slicer.qMRMLWidget):
        pass

    button, widget = Button(), Widget()
    button.state, widget.state = 1, 2
    assert (button.state, widget.state) == (1, 2)


def test_a_property_hides_the_getter_of_its_name(bench):
    import qt

    button = qt.QPushButton("Apply")

    assert button.text == "Apply"
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    button.setText("Cancel")
    assert button.text == "Cancel"


def test_a_property_with_a_virtual_getter_can_be_read_and_painted(bench):
    import qt

    bar = qt.QProgressBar()
    bar.maximum, bar.value = 10, 3

    assert bar.text == "30%"
    assert not bar.grab().isNull()


def test_setters_that_are_no_slots_do_not_exist_on_ctk_and_qmrml_widgets(selector, section):
    for call in (lambda: section.setCollapsed(True), lambda: selector.setNodeTypes([])):
        with pytest.raises(AttributeError):
            call()


def test_a_method_of_slicer_without_behaviour_here_says_so(bench):
    import slicer

    with pytest.raises(NotImplementedError, match="qMRMLTableView.insertRow exists in Slicer"):
        slicer.qMRMLTableView().insertRow()


@pytest.mark.parametrize(
    "signal", ["klicked()", "clicked(QString)", "valueChanged(int)", "currentNodeChanged(vtkMRMLNode*)"]
)
def test_a_button_refuses_signals_it_does_not_have(bench, signal):
    import qt

    with pytest.raises(AttributeError, match="does not exist on QPushButton"):
        qt.QPushButton().connect(signal, lambda: None)


@pytest.mark.parametrize("signal", ["currentNodeChanged(vtkMRMLScene*)", "currentNodeChanged()", "changed()"])
def test_a_selector_refuses_signals_it_does_not_have(selector, signal):
    with pytest.raises(AttributeError, match="does not exist on qMRMLNodeComboBox"):
        selector.connect(signal, lambda: None)


def test_a_wrong_type_is_refused_by_a_property(selector):
    for name, value in (("nodeTypes", "vtkMRMLScalarVolumeNode"), ("noneEnabled", "yes"), ("baseName", 3)):
        with pytest.raises(AttributeError, match=f"'{name}' of type"):
            setattr(selector, name, value)


def test_read_only_properties_cannot_be_set(bench):
    import slicer

    with pytest.raises(AttributeError, match="not writable"):
        slicer.app.slicerHome = "/"
    with pytest.raises(AttributeError, match="not writable"):
        slicer.qMRMLSegmentsTableView().segmentCount = 1


def test_the_overloads_of_a_signal_bring_what_their_types_say(selector):
    import slicer

    got = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: got.append(node.GetName() if node else None))
    selector.connect("currentNodeChanged(bool)", got.append)
    selector.connect("currentNodeIDChanged(QString)", got.append)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")

    selector.setCurrentNode(node)

    assert got == ["ct", True, node.GetID()]


def test_a_slot_gets_as_many_arguments_as_it_declares(bench):
    import qt

    got, button = [], qt.QPushButton()
    button.connect("clicked(bool)", lambda: got.append("none"))
    button.connect("clicked(bool)", lambda checked, more=1: got.append((checked, more)))
    button.connect("clicked()", lambda checked="default": got.append(checked))

    button.click()

    assert got == ["none", (False, 1), "default"]


def test_a_disconnected_slot_is_not_called(bench):
    import qt

    got, button = [], qt.QPushButton()

    def slot():
        got.append(1)

    button.connect("clicked()", slot)
    button.click()
    assert button.disconnect("clicked()", slot)
    button.click()

    assert got == [1]
    assert not button.disconnect("clicked()", slot)


def test_connections_go_with_the_widget_whose_they_are(bench):
    import qt
    from bench import pythonqt

    before = len(pythonqt._connections)
    button = qt.QPushButton()
    button.connect("clicked()", lambda: None)
    assert len(pythonqt._connections) == before + 1
    button.delete()

    assert len(pythonqt._connections) == before


def test_a_forgotten_widget_outlives_every_slot_and_goes_with_the_scene(bench):
    import qt

    class Forgotten(qt.QWidget):
        pass

    deleted = []
    widget = Forgotten()
    widget.itself = widget
    widget.destroyed.connect(lambda: deleted.append(True))
    del widget
    garbage = [[] for _ in range(100_000)]  # far more than the threshold of Python's collector
    del garbage

    assert not deleted
    bench.close_scene()
    assert deleted


def test_an_exception_in_a_slot_fails_the_step_that_caused_it(bench, capsys):
    import qt

    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()

    with pytest.raises(bench.BenchError, match=r"a slot of 'clicked\(\)' raised ZeroDivisionError"):
        bench.check_slots()


def test_an_exception_in_an_observer_fails_the_step_that_caused_it(bench, capsys):
    import slicer

    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, lambda caller, event: 1 / 0)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    slicer.mrmlScene.RemoveObserver(tag)

    with pytest.raises(bench.BenchError, match="ZeroDivisionError"):
        bench.check_slots()


UI = """<ui version="4.0"><class>Panel</class><widget class="qMRMLWidget" name="Panel">
<layout class="QVBoxLayout" name="layout"><item><widget class="{cls}" name="box">{property}</widget></item></layout>
</widget><connections>{connection}</connections></ui>"""
CONNECTION = "<connection><sender>{}</sender><signal>{}</signal><receiver>box</receiver><slot>{}</slot></connection>"


def load(path, cls="qMRMLNodeComboBox", property="", connection=""):
    import slicer

    path.write_text(UI.format(cls=cls, property=property, connection=connection))
    return slicer.util.loadUI(str(path))


def test_a_ui_file_connects_the_scene_to_its_selectors(bench, tmp_path):
    import slicer

    made = CONNECTION.format("Panel", "mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)")
    widget = load(tmp_path / "panel.ui", connection=made)

    widget.setMRMLScene(slicer.mrmlScene)

    assert slicer.util.childWidgetVariables(widget).box.mrmlScene() is slicer.mrmlScene


@pytest.mark.parametrize(
    "part",
    [
        {"cls": "qMRMLNodeSelector"},
        {"property": '<property name="nonEnabled"><bool>true</bool></property>'},
        {"cls": "QPushButton", "property": '<property name="txt"><string>a</string></property>'},
        {"cls": "ctkPathLineEdit", "property": '<property name="filters"><set>ctkPathLineEdit::Dir</set></property>'},
        {"cls": "QLabel", "property": '<property name="buddy"><cstring>bax</cstring></property>'},
        {"cls": "QFrame", "property": '<property name="buddy"><cstring>box</cstring></property>'},
        {"connection": CONNECTION.format("Panel", "sceneChanged()", "setMRMLScene(vtkMRMLScene*)")},
        {"connection": CONNECTION.format("Panel", "mrmlSceneChanged(vtkMRMLScene*)", "setScene(vtkMRMLScene*)")},
        {"connection": CONNECTION.format("Other", "mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)")},
    ],
    ids=["class", "property", "Qt's property", "flag", "buddy", "buddy of no label", "signal", "slot", "sender"],
)
def test_a_misspelt_name_in_a_ui_file_is_refused(bench, tmp_path, part):
    with pytest.raises(AttributeError):
        load(tmp_path / "panel.ui", **part)


def test_a_lookalike_cannot_be_given_a_name_that_slicer_lacks(bench):
    from bench.lookalikes import define

    with pytest.raises(TypeError, match=r"has names that Slicer's class does not have: \['currentNodes'\]"):

        @define
        class qMRMLTreeView:
            def currentNodes(self):
                return []


def test_mrml_nodes_are_as_strict_as_ever(bench):
    import slicer

    with pytest.raises(AttributeError):
        slicer.mrmlScene.GetNodeByName
