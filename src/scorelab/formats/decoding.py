"""Many pictures are decoded, in threads: Pillow's own code runs beside Python's."""

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from scorelab.formats.pictures import Picture, Rules, Unreadable, picture, quiet

TOGETHER = 32  # pictures that a thread takes at a time


def decoded(
    pictures: Iterable[bytes | Path], rules: Rules, total: int | None = None
) -> Generator[Picture | Unreadable, None, None]:
    """Each picture in its order, or why it cannot be read; a bar shows how far it is, where somebody can see it.

    Args:
        pictures: files or their contents, taken a few hundred ahead.
        rules: how they become bytes.
        total: how many there are, for the bar.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left, waiting = iter(pictures), deque[Future[list[Picture | Unreadable]]]()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decoding")
    bar = tqdm(total=total, desc="reading pictures", unit=" pictures", leave=False, dynamic_ncols=True, disable=None)
    with quiet(), bar:
        try:
            while True:
                while len(waiting) < 2 * threads and (some := list(islice(left, TOGETHER))):
                    waiting.append(pool.submit(_decoded, some, rules))
                if not waiting:
                    return
                found = waiting.popleft().result()
                yield from found
                bar.update(len(found))
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(pictures: list[bytes | Path], rules: Rules) -> list[Picture | Unreadable]:
    found: list[Picture | Unreadable] = []
    for each in pictures:
        try:
            found.append(picture(each, rules))
        except Unreadable as error:
            found.append(error.with_traceback(None))
    return found
