"""The stages' colours and the caption, the same in the table, the pictures and the reports."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

STAGE_COLOURS: tuple[Colour, ...] = ((82, 183, 136), (188, 208, 92), (244, 180, 68), (238, 120, 62), (222, 66, 82))
"""One for each grade, from calm to alarming."""

CAPTION = "evidence for retinopathy, not a lesion segmentation; research use only, not a medical device"
