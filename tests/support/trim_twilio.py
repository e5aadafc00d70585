"""Cut what creates and lists messages out of Twilio's OpenAPI description, for `tests/data`.

    python -m tests.support.trim_twilio twilio_api_v2010.json > tests/data/twilio_messages.json

The whole one comes in the npm package @twilio/cli-core 9.0.0, src/services/twilio-api/.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PATH = "/2010-04-01/Accounts/{AccountSid}/Messages.json"
ORIGIN = (
    "Part of Twilio's OpenAPI description (Apache-2.0) as of npm @twilio/cli-core 9.0.0 (MIT); "
    "cut out, and texts removed, by tests/support/trim_twilio.py."
)
#: For people, or for Twilio's own tools.
_DROPPED = ("description", "x-twilio", "x-maturity", "tags", "summary")
_REFERENCE = ('"format": "uri"', '"format": "uri-reference"')
#: Those of responses are what prism answers.
_EXAMPLES = ("examples", "example")


def trim(whole: dict[str, Any]) -> dict[str, Any]:
    """The description with one path, and all that it refers to."""
    path = _lean(whole["paths"][PATH])
    schemas = whole["components"]["schemas"]
    needed: dict[str, Any] = {}
    wanted = _references(path)
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed[name] = _lean(schemas[name])
            wanted |= _references(needed[name])
    return {
        "openapi": whole["openapi"],
        "info": {**whole["info"], "description": ORIGIN},
        "paths": {PATH: path},
        "components": {
            "schemas": dict(sorted(needed.items())),
            "securitySchemes": whole["components"]["securitySchemes"],
        },
        "servers": whole["servers"],
        "security": whole.get("security", []),
    }


def _lean(node: Any, *, names: bool = False) -> Any:
    """`node` without what is dropped; with `names` its keys are fields' names, not OpenAPI's."""
    if isinstance(node, list):
        return [_lean(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _response(value) if key == "responses" else _lean(value, names=key == "properties")
        for key, value in node.items()
        if names or key not in (*_DROPPED, *_EXAMPLES)
    }


def _response(responses: dict[str, Any]) -> dict[str, Any]:
    """They keep their first example, and must have a description.

    Twilio's examples have relative references where its own schemas demand whole URIs.
    """
    kept: dict[str, Any] = {}
    for status, response in responses.items():
        kind, content = next(iter(response["content"].items()))
        example = dict(list(content.get("examples", {}).items())[:1])
        schema = json.dumps(_lean(content["schema"])).replace(*_REFERENCE)
        lean = {"schema": json.loads(schema), "examples": example}
        kept[status] = {"description": "", "content": {kind: lean}}
    return kept


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set[str]().union(*map(_references, node))
    if not isinstance(node, dict):
        return set()
    found = set[str]().union(*map(_references, node.values()))
    if "$ref" in node:
        found.add(str(node["$ref"]).rpartition("/")[2])
    return found


if __name__ == "__main__":
    print(json.dumps(trim(json.loads(Path(sys.argv[1]).read_text("utf-8"))), indent=1))
