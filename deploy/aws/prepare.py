"""Makes a task's folders and writes its files, before the plane's own container starts. What to do stands in the first argument.

It runs as root in a container of its own, which ends; the volumes are all that it shares. Secrets come in variables, by ECS.
"""

import json
import os
import sys
from pathlib import Path

said = json.loads(sys.argv[1])
os.umask(0o077)
for folder, (user, mode) in said["folders"].items():
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    os.chown(place, user, user)
    place.chmod(int(mode, 8))
for path, (user, text) in said["texts"].items():
    Path(path).write_text(text, encoding="utf-8")
    os.chown(path, user, user)
for path, (user, variable) in said["secrets"].items():
    Path(path).write_text(os.environ[variable], encoding="utf-8")
    os.chown(path, user, user)
