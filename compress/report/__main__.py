"""``python -m compress.report``: print the JSON Schema of report.json, as kept in docs/report.schema.json."""

import json

from compress.report.document import json_schema

print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
