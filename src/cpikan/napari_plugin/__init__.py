"""Maps in napari: ``napari.yaml`` names the functions that open and save them; napari itself is not needed here."""
