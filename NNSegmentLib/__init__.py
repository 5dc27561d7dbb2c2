"""NNSegment: nnU-Net's journey from labelled images to a cross-validated model and its predictions."""

__version__ = "0.1.0"
