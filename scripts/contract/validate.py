"""Validates the OpenAPI documents and the JSON Schemas of docs/api with public validators, and the examples of docs/EVENTS.md with those.

Usage: validate.py <root of the repository>
"""

import json
import pathlib
import re
import sys

from jsonschema import Draft7Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

root = pathlib.Path(sys.argv[1])
api = root / "docs" / "api"

for path in sorted(api.glob("openapi-*.json")):
    OpenAPIV31SpecValidator(json.loads(path.read_text())).validate()
    print(f"{path.relative_to(root)}: OK")

schemas = {}
for path in sorted((api / "events").glob("*.json")):
    schema = json.loads(path.read_text())
    Draft7Validator.check_schema(schema)
    schemas[path.stem] = Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER)

examples = 0
sections = re.split(r"\n### `", (root / "docs" / "EVENTS.md").read_text())[1:]
for section in sections:
    kind = section.split("`", 1)[0]
    for block in re.findall(r"```json\n(.*?)```", section, re.S):
        schemas[kind].validate(json.loads(block))
        examples += 1
assert len(schemas) >= 20 and examples >= len(schemas), (len(schemas), examples)
print(f"docs/api/events: {len(schemas)} schemas OK, {examples} examples of docs/EVENTS.md fit them")
