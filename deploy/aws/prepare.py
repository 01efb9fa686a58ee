"""Makes a task's folders and writes its files, before the plane's own container starts. What to do stands in the first argument.

It runs as root in a container of its own, which ends; the volumes are all that it shares. Secrets come in variables, by ECS.
"""

import json
import os
import sys

said = json.loads(sys.argv[1])
os.umask(0o077)
for folder, (user, mode) in said["folders"].items():
    os.makedirs(folder, exist_ok=True)
    os.chown(folder, user, user)
    os.chmod(folder, int(mode, 8))
for path, (user, text) in said["texts"].items():
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chown(path, user, user)
for path, (user, variable) in said["secrets"].items():
    with open(path, "w", encoding="utf-8") as file:
        file.write(os.environ[variable])
    os.chown(path, user, user)
