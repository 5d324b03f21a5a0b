"""A folder of pictures: which files it holds, in an order that is the same on every machine, and what folders tell."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scorelab.errors import Refusal

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
OWN = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # splits by folder name
MAX_SHOWN = 120  # characters of a name


@dataclass(frozen=True)
class Entry:
    """A file by its name under the root, with / between folders; its size in bytes and when it was last changed."""

    name: str
    size: int = 0
    changed: int = 0

    @property
    def folders(self) -> tuple[str, ...]:
        """It lies in, the outermost first."""
        return tuple(self.name.split("/")[:-1])


def entries(root: Path) -> list[Entry]:
    """All pictures under a root by their suffix, in the order of their names' bytes.

    What is hidden or called __MACOSX is left out. Links to files are followed; a folder is walked once, by its own
    name where it lies under the root, else by the first link that leads to it. A link to nothing is listed: it was
    meant to be a picture.

    Raises:
        Refusal: where there is no such folder, or one cannot be read.
    """
    if not root.exists():
        raise Refusal(f"{shown(str(root))} is not there: data.path=FOLDER names a folder of images")
    if not root.is_dir():
        raise Refusal(f"{shown(str(root))} is no folder: data.path=FOLDER names a folder of images")
    found: list[Entry] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        about = os.stat(root / folder)
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        for item in _items(root / folder):
            name = f"{folder}/{item.name}" if folder else item.name
            if _leads_to_folder(item):
                (links if item.is_symlink() else folders).append(name)
            elif item.name.lower().endswith(SUFFIXES):
                found.extend(_entry(item, name))
        links.sort(key=os.fsencode)
    return sorted(found, key=lambda each: os.fsencode(each.name))


def _items(folder: Path) -> list["os.DirEntry[str]"]:
    """What a folder holds that is not hidden."""
    try:
        with os.scandir(folder) as items:
            return [item for item in items if not item.name.startswith(".") and item.name != "__MACOSX"]
    except OSError as error:
        raise Refusal(f"{shown(str(folder))} cannot be read ({(error.strerror or str(error)).lower()})") from error


def _leads_to_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads to itself, or through what may not be read
        return False


def _entry(item: "os.DirEntry[str]", name: str) -> Iterator[Entry]:
    """One for a file or a link to nothing, none for a pipe or a device."""
    try:
        about = item.stat()
    except OSError:
        yield Entry(name)
        return
    if item.is_file():
        yield Entry(name, about.st_size, about.st_mtime_ns)


def digest(files: list[Entry]) -> str:
    """Of all names, sizes and times of change."""
    told = hashlib.sha256()
    for each in files:
        told.update(os.fsencode(each.name) + f"\0{each.size}\0{each.changed}\0".encode())
    return told.hexdigest()


def shown(name: str) -> str:
    """A name as it can be printed and written anywhere: what is no printable character is escaped, the middle cut."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return plain if len(plain) <= MAX_SHOWN else f"{plain[: MAX_SHOWN // 2]}…{plain[-MAX_SHOWN // 2 :]}"


@dataclass(frozen=True)
class Layout:
    """What the folders tell of files.

    Attributes:
        parts: the files of each split that the set has itself; all of them under train where it has no others.
        own: the folder that each part is, by the part; none where the set is in one piece.
        left_out: folders beside them, and how many pictures those hold.
        classes: names of folders that are classes; none where there are no labels.
        why: there are labels, or none.
    """

    parts: dict[str, list[Entry]]
    own: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    why: str = ""

    def labels(self, part: str) -> list[int]:
        """Of a part's files, 0 without classes."""
        if not self.classes:
            return [0] * len(self.parts[part])
        number = {name: k for k, name in enumerate(self.classes)}
        return [number[each.folders[-1]] for each in self.parts[part]]


def layout(files: list[Entry]) -> Layout:
    """Splits and classes of a tree.

    Folders train, and val (valid, validation) or test, in any case, are the set's own splits; a tree whose only folder
    is train is one. Labels are the folders that pictures lie in, where each lies in exactly one, under the root or
    under its split.

    Raises:
        Refusal: where two folders are the same split.
    """
    top = Counter(each.folders[0] if each.folders else "" for each in files)
    own: dict[str, str] = {}
    for folder in sorted(top, key=os.fsencode):
        part = OWN.get(folder.lower())
        if part in own:
            raise Refusal(f"folders {shown(own[part])} and {shown(folder)} are both {part} splits: leave one")
        if part:
            own[part] = folder
    if "train" not in own or (len(own) == 1 and len(top) > 1):
        classes, why = _classes(files, 0)
        return Layout({"train": files}, classes=classes, why=why)
    parts = {part: [each for each in files if each.folders[:1] == (folder,)] for part, folder in own.items()}
    left_out = {shown(folder or "(the root)"): n for folder, n in top.items() if folder not in own.values()}
    classes, why = _classes([each for part in parts.values() for each in part], 1)
    return Layout(parts, own, left_out, classes, why)


def _classes(files: list[Entry], depth: int) -> tuple[tuple[str, ...], str]:
    """The folders at a depth, if each file lies in one and no deeper; and why they are, or are not."""
    found = {each.folders[depth] for each in files if len(each.folders) == depth + 1}
    place = "under the root" if depth == 0 else "under its split"
    if any(len(each.folders) != depth + 1 for each in files):
        return (), f"none: not every image lies in exactly one folder {place}"
    if len(found) == 1:
        return (), f"none: all images lie in one folder {place}"
    return tuple(sorted(found, key=os.fsencode)), f"the folders {place}"
