"""A bench that runs unmodified scripted Slicer modules without Slicer; see README.md beside this file."""
