"""The decorator and the binding of fields to widgets."""

import enum
import pathlib

import vtk

from .fields import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, makeFields

# class of the widget, signal of a change by the user, property that holds the value
CONNECTIONS = (
    ("qMRMLNodeComboBox", "currentNodeIDChanged(QString)", None),
    ("ctkSliderWidget", "valueChanged(double)", "value"),
    ("ctkDoubleSpinBox", "valueChanged(double)", "value"),
    ("ctkPathLineEdit", "currentPathChanged(QString)", "currentPath"),
    ("ctkDirectoryButton", "directoryChanged(QString)", "directory"),
    ("QSpinBox", "valueChanged(int)", "value"),
    ("QDoubleSpinBox", "valueChanged(double)", "value"),
    ("QSlider", "valueChanged(int)", "value"),
    ("QComboBox", "currentTextChanged(QString)", "currentText"),
    ("QLineEdit", "textChanged(QString)", "text"),
    ("QPlainTextEdit", "textChanged()", "plainText"),
    ("QAbstractButton", "toggled(bool)", "checked"),
)


class Binding:
    """One field and one widget, each following the other."""

    def __init__(self, owner, field, widget):
        self.owner, self.field, self.widget = owner, field, widget
        found = next((c for c in CONNECTIONS if widget.inherits(c[0])), None)
        if found is None:
            raise ValueError(f"no way is known to bind '{field.name}' to a {widget.className()}")
        _, self.signal, self.property = found
        self.prepare()
        self.toWidget()
        widget.connect(self.signal, self.toNode)

    def prepare(self):
        limits = self.field.find(WithinRange), self.field.find(Minimum), self.field.find(Maximum)
        for limit in filter(None, limits):
            for end in ("maximum", "minimum"):
                if hasattr(limit, end):
                    setattr(self.widget, end, self.number(getattr(limit, end)))
        for annotation, end in ((Decimals, "decimals"), (SingleStep, "singleStep")):
            if self.field.find(annotation):
                setattr(self.widget, end, self.field.find(annotation).value)
        choice = self.field.find(Choice)
        if choice and self.widget.inherits("QComboBox"):
            self.widget.clear()
            self.widget.addItems([str(c) for c in choice.choices])

    def number(self, value):
        return int(value) if self.widget.inherits("QSpinBox") or self.widget.inherits("QSlider") else float(value)

    def toWidget(self):
        value = getattr(self.owner, self.field.name)
        if self.property is None:
            if self.widget.currentNode() is not value:
                self.widget.setCurrentNode(value)
            return
        if isinstance(value, enum.Enum):
            value = value.name
        if isinstance(value, pathlib.Path):
            value = str(value) if value != pathlib.Path() else ""
        if self.property == "value":
            value = self.number(value)
        if getattr(self.widget, self.property) != value:
            setattr(self.widget, self.property, value)

    def toNode(self):
        if self.property is None:
            value = self.widget.currentNode()
        else:
            value = getattr(self.widget, self.property)
            if value is not None and not self.field.isNode:
                value = self.converted(value)
        setattr(self.owner, self.field.name, value)

    def converted(self, value):
        origin = self.field.origin
        return origin[value] if issubclass(origin, enum.Enum) else origin(value)

    def cut(self):
        self.widget.disconnect(self.signal, self.toNode)


class ParameterNode:
    """What every decorated class becomes: attributes that live in `parameterNode`; any other attribute is refused."""

    fields = {}

    def __init__(self, parameterNode, prefix=None):
        own = {"parameterNode": parameterNode, "prefix": prefix + "." if prefix else "", "bindings": {}, "tags": {}}
        self.__dict__.update(own)
        for field in self.fields.values():
            key = self.prefix + field.name
            if not field.isNode and not parameterNode.HasParameter(key):
                parameterNode.SetParameter(key, field.toText(field.default))

    def __getattr__(self, name):
        if name not in self.fields:
            raise AttributeError(f"'{type(self).__name__}' has no parameter '{name}'")
        field, key = self.fields[name], self.prefix + name
        if field.isNode:
            return self.parameterNode.GetNodeReference(key)
        if not self.parameterNode.HasParameter(key):  # closing the scene empties the node
            return field.default
        return field.fromText(self.parameterNode.GetParameter(key))

    def __setattr__(self, name, value):
        if name not in self.fields:
            raise AttributeError(f"'{type(self).__name__}' has no parameter '{name}'")
        field, key = self.fields[name], self.prefix + name
        field.check(value)
        if field.isNode:
            self.parameterNode.SetNodeReferenceID(key, value.GetID() if value is not None else None)
        else:
            self.parameterNode.SetParameter(key, field.toText(value))

    def default(self, name):
        return self.fields[name].default

    def dataType(self, name):
        return self.fields[name].kind

    def getValue(self, name):
        return getattr(self, name)

    def setValue(self, name, value):
        setattr(self, name, value)

    def connectGui(self, gui):
        """Bind a mapping of names to widgets, or every widget of `gui` with the property SlicerParameterName."""
        widgets = gui if isinstance(gui, dict) else self.markedWidgets(gui)
        bindings = [Binding(self, self.fields[name], widget) for name, widget in widgets.items()]

        def follow(caller, event):
            for binding in bindings:
                binding.toWidget()

        tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, follow)
        self.bindings[tag] = bindings
        return tag

    def markedWidgets(self, gui):
        marked = {w.property("SlicerParameterName"): w for w in vars(gui).values() if hasattr(w, "property")}
        marked.pop(None, None)
        unknown = set(marked) - set(self.fields)
        if unknown:
            raise ValueError(f"widgets name parameters that do not exist: {sorted(unknown)}")
        return marked

    def disconnectGui(self, tag):
        self.parameterNode.RemoveObserver(tag)
        for binding in self.bindings.pop(tag):
            binding.cut()

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def Modified(self):
        self.parameterNode.Modified()


def parameterNodeWrapper(cls):
    """Class decorator: typed fields become parameters of a vtkMRMLScriptedModuleNode."""
    methods = {k: v for k, v in vars(cls).items() if callable(v) and not k.startswith("__")}
    fields = makeFields(cls)
    return type(cls.__name__, (ParameterNode,), {**methods, "fields": fields, "__module__": cls.__module__})
