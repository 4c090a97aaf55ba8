"""Whether an image seems to contain text: a scanner or a journal may have written a name, a date or an arrow into
it.
"""

from __future__ import annotations

from PIL import Image

from ddtl.audits.views import strokes

# Percent of the image that is thin, bright and outside the body: a line of ten letters adds about 0.1. Of the slices
# of SARS-CoV-2 CT-scan, cropped to the body, under 5 % have as much; of COVID19-CT, cut out of papers, over half.
_LEAST = 0.05


def has_text(gray: Image.Image) -> bool:
    """Return whether an image (mode ``L``, full size) seems to contain text or arrows outside the body; none in it
    is.
    """
    return strokes(gray) >= _LEAST
