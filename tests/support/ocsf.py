"""Checks events, one a line, against the schema that OCSF publishes, as the package ocsf-json-schema has it."""

import collections
import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema


def main(path):
    schemas, published = {}, {}
    checked = collections.Counter()
    failures = 0
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        event = json.loads(line)
        metadata = event["metadata"]
        version = metadata["version"]
        if version not in published:
            published[version] = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        name = published[version].lookup_class_name_from_uid(class_uid=event["class_uid"])
        key = (version, name, *metadata.get("profiles", []))
        if key not in schemas:
            schema = published[version].get_class_schema(class_name=name, profiles=list(key[2:]))
            # A field that the schema does not know is an error, not a liberty.
            schemas[key] = Draft202012Validator({**schema, "additionalProperties": False})
        for error in schemas[key].iter_errors(event):
            failures += 1
            print(f"line {number}, {name}: {error.json_path}: {error.message[:300]}")
        checked[name] += 1
    print(f"{sum(checked.values())} events of OCSF {', '.join(published)}: {dict(sorted(checked.items()))}")
    sys.exit(1 if failures or not checked else 0)


main(sys.argv[1])
