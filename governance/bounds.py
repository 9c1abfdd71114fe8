"""Bounds that several contexts share, in characters. Others stand next to their model."""

from __future__ import annotations

import re

# The slug of a department.
DEPARTMENT_MAX = 40
# A name in addresses: of a model, a dataset, a knowledge base, a deployment.
NAME_MAX = 80
# A name that people read: of a person, a department, a key.
TITLE_MAX = 120
DESCRIPTION_MAX = 500
EMAIL_MAX = 254
FILENAME_MAX = 255
GROUP_MAX = 255
TASK_MAX = 40
TIER_MAX = 20
REQUEST_ID_MAX = 64
# Characters that are on no line of text: controls, ends of lines, and overrides of direction.
NOT_ON_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# The same, but for tabs and ends of lines, which are in text of several lines.
NOT_IN_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
