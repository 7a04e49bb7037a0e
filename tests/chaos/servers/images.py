"""A small file system in a file: it fills up, it grows, and its power can be cut.

What is copied of the file while the server stands still is what a disk would have after the lights went out: pages that
were never flushed are not in it. `commit=300` keeps ext4 from flushing them by itself in between.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEBIBYTE = 2**20
NO_MOUNTS = "mounting a loop image or a tmpfs needs root and /dev/loop-control: run this as root on Linux"
_TOOLS = ("mkfs.ext4", "mount", "umount", "losetup")


def _have() -> bool:
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and all(map(shutil.which, _TOOLS))


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A tmpfs of that size; `grow` makes it larger."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "counterfoil-test", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "-l", str(folder))


def grow(folder: Path, mebibytes: int) -> None:
    """Somebody has bought a larger disk."""
    _run("mount", "-o", f"remount,size={mebibytes}m", str(folder))


class Image:
    """An ext4 file system in a file, mounted at `place`."""

    def __init__(self, file: Path, place: Path) -> None:
        self.file = file
        self.place = place

    def copied(self, file: Path) -> Image:
        """As it would be found after a power cut at this moment; not mounted."""
        _run("cp", "--sparse=always", str(self.file), str(file))
        return Image(file, self.place.with_name(file.stem))

    def flush(self) -> None:
        """What is written until now, whoever wrote it, is on the disk."""
        _run("sync", "-f", str(self.place))

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        self.place.mkdir(exist_ok=True)
        _run("mount", "-o", "loop,commit=300", str(self.file), str(self.place))
        try:
            yield self.place
        finally:
            _run("umount", "-l", str(self.place))


def image(folder: Path, mebibytes: int) -> Image:
    """A new one below `folder`."""
    file = folder / "disk.img"
    with file.open("wb") as empty:
        empty.truncate(mebibytes * MEBIBYTE)
    _run("mkfs.ext4", "-q", "-F", str(file))
    return Image(file, folder / "disk")


def possible(folder: Path) -> bool:
    """Whether this machine lets us: root alone is not enough in most containers."""
    if not _have():
        return False
    probe = folder / "probe"
    probe.mkdir(exist_ok=True)
    try:
        with small_disk(folder / "probe-tmpfs", 1), image(probe, 8).mounted():
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
