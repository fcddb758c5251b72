"""Run every ```sh block of a README marked <!-- run --> in one shell, and every such ```python block, in a folder."""

import re
import subprocess
import sys
from pathlib import Path

readme, folder = Path(sys.argv[1]), Path(sys.argv[2])
blocks = re.findall(r"<!-- run -->\n```(sh|python)\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
if not blocks:
    sys.exit(f"{readme}: no block marked <!-- run -->")
for language, code in blocks:
    print(f"\n$ {code}", flush=True)
    command = ["bash", "-euc", code] if language == "sh" else [sys.executable, "-c", code]
    subprocess.run(command, cwd=folder, check=True)
print(f"\n{len(blocks)} blocks of {readme.name} ran")
