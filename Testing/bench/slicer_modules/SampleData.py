"""The part of Slicer's module Sample Data that other modules call: registering data sets under a category."""

import slicer


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataCategory(category, title=None):
        titles = slicer.modules.__dict__.setdefault("sampleDataCategories", {})
        titles[category] = title or category

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType=None,
        loadFileProperties=None,
        checksums=None,
        loadFiles=None,
    ):
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {}).setdefault(category, {})
        sources[sampleName] = customDownloader
