"""The last stage of a Containerfile without a container: its files, steps, user and command, in namespaces of Linux."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

KERNEL = ("dev", "proc", "sys")
OWN = ("tmp", "opt", "app", "studies", "input", "output", "bundles")  # what a container has of its own


class Containerfile:
    """What a Containerfile makes of an environment that is there already.

    Args:
        file: with the instructions ``COPY``, ``ENV``, ``RUN``, ``WORKDIR``, ``USER`` and ``CMD`` in its last stage.
        environment: the folder that its first stage would have made.
    """

    def __init__(self, file: Path, environment: Path) -> None:
        lines = re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8")).splitlines()
        kept = [line for line in lines if line and not line.startswith("#")]
        last = max(number for number, line in enumerate(kept) if line.startswith("FROM "))
        self.steps = [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in kept[last + 1 :]]
        self.repository, self.environment = file.parents[1], environment

    def step(self, name: str) -> str:
        """What an instruction says that occurs once."""
        (found,) = (content for step, content in self.steps if step == name)
        return found

    def start(
        self, root: Path, volumes: Mapping[str, Path], replace: tuple[str, str] = ("", ""), **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start its command as its user, who has no name, in a file system of its own.

        Args:
            root: an empty folder, where that is mounted.
            volumes: folders by their places in it.
            replace: a part of the command, and another one.
            **variables: of the environment, beside its own.
        """
        if subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", root], capture_output=True).returncode:
            pytest.skip("needs user namespaces, in which a user without a name can be made")
        command = json.loads(self.step("CMD"))
        command[-1] = command[-1].replace(*replace)
        script = "\n".join([*self._files(root), *self._volumes(root, volumes), self._entry(root, command, variables)])
        with self.log(root).open("wb") as log:
            return subprocess.Popen([*UNSHARE, "sh", "-ec", script], stdout=log, stderr=subprocess.STDOUT)

    @staticmethod
    def log(root: Path) -> Path:
        """What the command says."""
        return root.with_name("container.log")

    def _files(self, root: Path) -> list[str]:
        """Mount the system's own folders, and carry out ``COPY`` and ``RUN``."""
        script = [f"mount -t tmpfs tmpfs {root}", f"mkdir -m 1777 {root}/tmp", f"mkdir {root}/opt"]
        for place in (*Path("/").iterdir(), *Path("/opt").iterdir()):
            if place.is_symlink():
                script.append(f"cp -d {place} {root}{place}")
            elif place.is_dir() and place.name not in OWN:
                script.append(f"mkdir {root}{place} && mount --rbind {place} {root}{place}")
                if place.name not in KERNEL:  # to whose user the files of the tests' user belong here
                    script.append(f"mount -o remount,bind,ro {root}{place}")
        for step, content in self.steps:
            if step == "COPY":
                *flags, source, place = shlex.split(content)
                target = f"{root}{place}"
                made = f"mount --rbind {self.environment}" if flags else f"cp -rT {self.repository / source}"
                script.append(f"mkdir -p {target} && {made} {target}")
                if flags:
                    script.append(f"mount -o remount,bind,ro {target}")
            elif step == "RUN":
                script.append(f"chroot {root} sh -ec {shlex.quote(content)}")
        return script

    def _volumes(self, root: Path, volumes: Mapping[str, Path]) -> list[str]:
        """Mount folders; the package is taken from the repository, whose environments refer to it."""
        places = {**volumes, "/tmp/package": self.repository}
        return [f"mkdir -p {root}{place} && mount --rbind {folder} {root}{place}" for place, folder in places.items()]

    def _entry(self, root: Path, command: list[str], variables: Mapping[str, str]) -> str:
        """Enter it."""
        user, group = self.step("USER").split(":")
        texts = " ".join(content for step, content in self.steps if step == "ENV").replace("$PATH", "/usr/bin:/bin")
        given = [f"{key}={value}" for key, value in variables.items()]
        named = [*shlex.split(texts), "PYTHONPATH=/tmp/package", *given]
        inner = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}", f"--root={root}"]
        inner += [f"--wd={self.step('WORKDIR')}", "env", "-i", *named, *command]
        return f"exec {shlex.join(inner)}"


UNSHARE = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
