"""The cache of finished work: what is made once and shared by runs and processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from compress.errors import DamagedError
from compress.files import hash_json, locked, settle, storage_faults
from compress.leases import Lease
from compress.machine import versions
from compress.pipeline.cache import LOCKS, PARTIAL, PRODUCT, Cache
from compress.sealed import check_contents, contents_of, read_sealed, write_sealed
from compress.telling import detail, say, warn
from compress.usage import Usage, metered, together

MATTERS = ("compress", "torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")
SCRATCH = "scratch"  # below a folder in the making: what resumption needs and the finished folder does not
SPENT = "seconds.json"  # in a folder in the making: what earlier, interrupted attempts took

_noted: list[list[Product]] = []  # what collects products now; the last one does

_intact: dict[Path, tuple[Any, ...]] = {}  # products whose files this process has checked: how the files stood then


@dataclass(frozen=True)
class Kind:
    """What is made, and the revision of the code that makes it.

    Raise ``revision`` when the code comes to give another result for the same settings: what earlier code made is then
    not used any more. A test notices where code has changed, and its revision has not.
    """

    name: str
    _: KW_ONLY
    revision: int

    def named(self, name: str) -> Kind:
        """Return the same kind under a name that says what it is made for."""
        return replace(self, name=name)


@dataclass(frozen=True)
class Product:
    """A finished folder in the cache, and what its maker recorded about it."""

    folder: Path
    key: str
    usage: Usage  # what it took, all attempts together
    reused: bool  # it was there before this run asked for it
    record: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """The seconds that it took."""
        return self.usage.seconds


Work = Callable[[Path], Mapping[str, Any] | None]
"""Makes something in a folder, which may hold files of an interrupted attempt; returns a JSON-ready record."""


@dataclass(frozen=True)
class Workshop:
    """Where work is done once: a cache of finished folders, shared by runs and by processes.

    A folder is named by what it was made with and from, and by the revision of the code that makes it. Work goes on in
    ``<name>.partial``, under a lock that dies with its process, and is renamed when it is whole: a killed run leaves a
    partial folder, in which the same work resumes. A finished folder lists the hashes of its files. They are checked
    when a process first uses it; what is damaged is reported and made again.
    """

    cache: Path
    _: KW_ONLY
    run: Path | None = None  # the folder of the run that all this is for, where there is one

    def make(self, kind: Kind, made_with: Any, work: Work, *, again: bool = False) -> Product:
        """Return the product of ``work(folder)``, done now or found finished; ``again``: done now, in its place.

        ``made_with`` is everything that the result depends on beside the code, JSON-ready. Where ``work`` finds that
        the files of an interrupted attempt are damaged, it raises DamagedError, and is called again with an empty
        folder. Raises StorageError.
        """
        key, final = self._place(kind, made_with)
        self._use(final)

        with storage_faults(self.cache):
            try:
                if final.exists() and not again:
                    return self._found(_read(final, key, reused=True))
            except DamagedError:
                pass  # reported below, by the process that makes it again
            with self._alone(kind, final) as lease:
                try:
                    if final.exists() and not again:  # another process has made it meanwhile
                        return self._found(_read(final, key, reused=True))
                except DamagedError as damage:
                    warn(f"{kind.name}: {damage.path} in the cache {damage.how}; it is made again")
                    shutil.rmtree(final)
                self._work(kind, final, key, work, lease)
                return self._found(_read(final, key, reused=False))

    def _found(self, product: Product) -> Product:
        """Note and tell that a product was asked for."""
        if _noted:
            _noted[-1].append(product)
        how = "found" if product.reused else "made"
        detail(f"  {how} in the cache: {product.folder.name}, {product.usage.seconds:.1f} s")
        return product

    @contextmanager
    def collecting(self, kind: Kind, made_with: Any) -> Iterator[Path]:
        """Hold a folder that is never finished: each use adds to it, and what is there is kept whatever ends the use.

        Unlike a product it does not depend on versions of packages. Raises StorageError.
        """
        folder = self.cache / f"{kind.name}-{hash_json([kind.name, kind.revision, made_with])[:24]}"
        self._use(folder)
        with storage_faults(self.cache), self._alone(kind, folder):
            partial = folder.with_name(folder.name + PARTIAL)
            partial.mkdir(exist_ok=True)
            yield partial

    def _use(self, folder: Path) -> None:
        Cache(self.cache).use(folder.name, str(self.run.absolute()) if self.run else None)

    @contextmanager
    def _alone(self, kind: Kind, folder: Path) -> Iterator[Lease]:
        """Hold the lock of a folder."""

        def say_waiting() -> None:
            say(f"{kind.name}: another run is making this now; waiting for it")

        with locked(self.cache / LOCKS / folder.name, say_waiting) as lease:
            yield lease

    def _place(self, kind: Kind, made_with: Any) -> tuple[str, Path]:
        key = hash_json([kind.name, kind.revision, made_with, self.version])
        return key, self.cache / f"{kind.name}-{key[:24]}"

    def _work(self, kind: Kind, final: Path, key: str, work: Work, lease: Lease) -> None:
        partial = final.with_name(final.name + PARTIAL)
        resumes = partial.exists()
        try:
            self._attempt(partial, final, key, work, lease)
        except DamagedError as damage:
            if not resumes or not damage.path.is_relative_to(partial):
                raise
            warn(f"{kind.name}: {damage.path} of the interrupted work {damage.how}; starting again")
            shutil.rmtree(partial)
            self._attempt(partial, final, key, work, lease)

    def _attempt(self, partial: Path, final: Path, key: str, work: Work, lease: Lease) -> None:
        """Do the work, or the rest of it, and make the folder final."""
        partial.mkdir(exist_ok=True)
        if (partial / PRODUCT).exists():  # whole, except for the last step
            _read(partial, key, reused=False)
            settle(partial, final)
            return
        before = read_sealed(partial / SPENT)
        earlier = [] if before is None else [Usage.read(before)]
        try:
            with metered() as meter, noted():  # what it is made of is part of it
                record = work(partial)
        except BaseException as error:
            if isinstance(error, Exception):
                lease.check()  # another process may have taken over the folder
            if not lease.is_ours():
                raise
            if any(partial.iterdir()):
                write_sealed(partial / SPENT, together([*earlier, meter.usage]).report())
            else:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        lease.check()
        usage = together([*earlier, meter.usage])
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        (partial / SPENT).unlink(missing_ok=True)
        files = contents_of(partial)
        product = {"key": key, "record": dict(record or {}), "files": files, **usage.report()}
        write_sealed(partial / PRODUCT, product)
        _intact[final.absolute()] = _stands(partial, files)
        if final.exists():  # it was made again
            shutil.rmtree(final)
        settle(partial, final)

    @property
    def version(self) -> str:
        """The versions that a result may depend on."""
        return " ".join(f"{name} {version}" for name, version in versions().items() if name in MATTERS)


@contextmanager
def noted() -> Iterator[list[Product]]:
    """Collect the products that are asked for meanwhile, but not those that go into the making of others."""
    products: list[Product] = []
    _noted.append(products)
    try:
        yield products
    finally:
        _noted.pop()


def _read(folder: Path, key: str, *, reused: bool) -> Product:
    """Return the product in a folder, every byte of it checked once per process. Raises DamagedError."""
    product = read_sealed(folder / PRODUCT)
    if product is None:
        raise DamagedError(folder / PRODUCT, "is missing")
    if product["key"] != key:
        raise DamagedError(folder / PRODUCT, "belongs to other work")
    try:
        stands = _stands(folder, product["files"])
    except OSError:
        stands = ()
    if not stands or _intact.get(folder.absolute()) != stands:
        check_contents(folder, product["files"])
        _intact[folder.absolute()] = stands
    return Product(folder, key, Usage.read(product), reused, product["record"])


def _stands(folder: Path, names: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what changes when a file is written to, replaced or removed."""
    found = [(folder / name).stat() for name in names]
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in found)
