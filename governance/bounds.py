"""Length limits in characters that several contexts share. Others are defined with their model."""

from __future__ import annotations

import re

# The slug of a department.
DEPARTMENT_MAX = 40
# A name used in URLs: of a model, a dataset, a knowledge base, a deployment.
NAME_MAX = 80
# A display name: of a person, a department, a key.
TITLE_MAX = 120
DESCRIPTION_MAX = 500
EMAIL_MAX = 254
FILENAME_MAX = 255
GROUP_MAX = 255
TASK_MAX = 40
TIER_MAX = 20
REQUEST_ID_MAX = 64
# Characters not allowed in a single line: controls, line breaks, and direction overrides.
NOT_ON_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# The same for text of several lines, where tabs and line breaks are allowed.
NOT_IN_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
