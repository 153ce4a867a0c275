"""Holds lines of JSON against a JSON Schema: json_schema.py SCHEMA <LINES

Tells each line that is not as the schema says, and how many lines there were.
"""

import json
import sys

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"], schema["$schema"]
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(
    schema, format_checker=Draft202012Validator.FORMAT_CHECKER
)
count = 0
bad = 0
for line in sys.stdin:
    count += 1
    error = best_match(validator.iter_errors(json.loads(line)))
    if error is not None:
        bad += 1
        print(f"line {count}: {error.json_path}: {error.message}\n  {line.strip()}")
print(f"{count} lines, {bad} bad")
sys.exit(1 if bad else 0)
