"""Names of models and data sets: which are paths, and whether the hub can be asked for the others.

Libraries try a hub that is out of reach for half a minute. Here it is asked once per process, for a second or
two; after that only what is in the cache is used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from compress.errors import ModelError
from compress.files import no_folder

PATIENCE = 2.0  # seconds in which the hub must answer


def looks_like_a_path(name: str) -> bool:
    """Say whether a name can only be a path: it starts or ends as one, or has more parts than a hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")


def absent(name: str, packaged: Iterable[str] = ()) -> tuple[str, str] | None:
    """Return (rule, remedy) where a model's name stands for no folder and for nothing that a hub could have.

    That is a file, a path that does not exist, or a name much like one that is ``packaged``. Asks no hub, so that
    a hub id passes, whatever folders have names like it.
    """
    if name in packaged:
        return None
    path = Path(name).expanduser()
    remedy = "Name a folder with config.json and model.safetensors."
    try:
        rule = no_folder(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})", remedy
    if not rule:
        return None
    if looks_like_a_path(name) or path.exists() or path.is_symlink():
        return rule, meant_path(name) or remedy
    meant = get_close_matches(name.casefold(), list(packaged), n=1, cutoff=0.8) if "/" not in name else []
    return ("is neither a folder nor a packaged model", f"Did you mean {meant[0]}?") if meant else None


def meant_path(name: str) -> str:
    """Return a question for the path that is most like a name with a slash; "" without one."""
    return meant_file(Path(name).expanduser()) if "/" in name else ""


def meant_file(path: Path) -> str:
    """Return a question for the path that is most like one that leads nowhere; "" without one."""
    close = "" if path.exists() else similar_path(path)
    return f"Did you mean {close}?" if close else ""


def similar_path(path: Path) -> str:
    """Return the path in the same folder whose name is nearest to that of ``path``; "" where none is near."""
    try:
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        return ""
    close = get_close_matches(path.name, [name for name in siblings if name != path.name], n=1, cutoff=0.7)
    return str(path.parent / close[0]) if close else ""


@contextmanager
def quick(model: str | Path) -> Iterator[None]:
    """Within, a model is taken from the cache alone if the hub is out of reach. Folders are left alone.

    Raises ModelError at once where the model is neither a folder nor in the cache, and the hub is out of reach.
    """
    name = str(model)
    if Path(name).is_dir():
        yield
        return
    if reason := absent(name):
        rule, remedy = reason
        raise ModelError(f"{name}: {rule}. {remedy}")
    if trouble := unreachable():
        if not _is_cached(name):
            remedy = (
                meant_path(name) or "Check the spelling, or the network, or name a folder written by save_pretrained."
            )
            raise ModelError(f"{name}: there is no such folder, it is not in the hub's cache, and {trouble}. {remedy}")
        with offline():
            yield
        return
    yield


def unreachable() -> str:
    """Return why the hub cannot be asked, as a clause; "" where it can. The answer is kept for the process."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids asking the hub"
    return "" if _answers(constants.ENDPOINT) else f"the hub ({constants.ENDPOINT}) cannot be reached"


@contextmanager
def offline() -> Iterator[None]:
    """Within, the hub's libraries use their cache alone, as HF_HUB_OFFLINE=1 would have it from the start."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def _answers(endpoint: str) -> bool:
    """Ask for anything at all; a thread, since looking up a host's name cannot be cut short."""
    from huggingface_hub import get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=PATIENCE)
        except Exception:  # whatever the HTTP library raises: there was no answer
            finished.set()
            return
        answered.set()
        finished.set()

    finished = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    finished.wait(PATIENCE + 0.5)
    return answered.is_set()


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return False
