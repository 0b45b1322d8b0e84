"""The OME-XML of an output: an image per quantity, as readers of bioformats2raw collections want it."""

from __future__ import annotations

from xml.etree import ElementTree

from cpikan.storage.writers.layout import QUANTITIES, MapLayout, pixel_um

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_FLOATS = {"float32": "float", "float64": "double"}  # integers have the names of NumPy


def ome_xml(layout: MapLayout) -> str:
    """Write the metadata of all quantities, in the order of the layout; no program, version or time.

    The path of an image follows ``Image:`` in its ID, where napari looks for it.
    """
    root = ElementTree.Element("OME", {"xmlns": _SCHEMA})
    pixel = pixel_um(layout.attributes)
    sizes = {} if pixel is None else {"PhysicalSizeX": repr(pixel[1]), "PhysicalSizeY": repr(pixel[0])}
    for name in layout.quantities:
        image = ElementTree.SubElement(root, "Image", {"ID": f"Image:{name}", "Name": name})
        described = {
            "ID": f"Pixels:{name}",
            "DimensionOrder": "XYZCT",
            "Type": _FLOATS.get(QUANTITIES[name].dtype.name, QUANTITIES[name].dtype.name),
            "SizeX": str(layout.shape[1]),
            "SizeY": str(layout.shape[0]),
            **dict.fromkeys(("SizeZ", "SizeC", "SizeT"), "1"),
            **sizes,  # micrometres are the default unit
        }
        pixels = ElementTree.SubElement(image, "Pixels", described)
        ElementTree.SubElement(pixels, "Channel", {"ID": f"Channel:{name}:0", "SamplesPerPixel": "1"})
        ElementTree.SubElement(pixels, "MetadataOnly")
    ElementTree.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}\n{ElementTree.tostring(root, encoding='unicode')}\n"
