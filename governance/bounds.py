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
_NOT_ON_A_LINE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
NOT_ON_A_LINE = re.compile(f"[{_NOT_ON_A_LINE}]")
# The same for text of several lines, where tabs and line breaks are allowed.
_NOT_IN_TEXT = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
NOT_IN_TEXT = re.compile(f"[{_NOT_IN_TEXT}]")
# The same rules as patterns of JSON Schema: what a line or text is, and one that is not blank.
ON_A_LINE = f"[^{_NOT_ON_A_LINE}]"
LINE_OR_EMPTY = f"^{ON_A_LINE}*$"
LINE = f"^{ON_A_LINE}*[^{_NOT_ON_A_LINE}\\s]{ON_A_LINE}*$"
TEXT_OR_EMPTY = f"^[^{_NOT_IN_TEXT}]*$"
TEXT = f"^[^{_NOT_IN_TEXT}]*[^{_NOT_IN_TEXT}\\s][^{_NOT_IN_TEXT}]*$"
# The slug of a department begins with a letter and has two characters or more.
DEPARTMENT = f"^[a-z][a-z0-9-]{{0,{DEPARTMENT_MAX - 2}}}[a-z0-9]$"
SLUG = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
# Name of a measure by which answers are compared.
MEASURE_MAX = 20
