"""The python3 workload: parse, unparse, compile, search and dump a part of the standard library."""
import ast
import glob
import json
import os
import re
import sys

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
FILES = sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py")))[:24]
WORD = re.compile(r"\b([a-z_]+)\s*\(([^()]*)\)")

total = 0
for _ in range(ROUNDS):
    for path in FILES:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tree = ast.parse(text)
        total += len(ast.unparse(tree))
        total += len(compile(tree, path, "exec").co_consts)
        calls = [{"name": m.group(1), "arguments": m.group(2).split(",")} for m in WORD.finditer(text)]
        total += len(json.loads(json.dumps(calls)))
print(total)
