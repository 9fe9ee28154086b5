"""Fingerprints of code: they change when the meaning of what a stage runs changes, and only then."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the package that runs
PACKAGE = ROOT.name
# What changes no result, and is neither hashed nor followed: what a person sees, where runs are logged, who does the
# work, how downloads are tried again, and how params.yaml is read, because the resolved settings count. The registries
# only name modules; those that a run uses are hashed with it.
NO_RESULT = (
    "cards", "cli", "commands", "config", "errors", "experiment", "files", "interruption", "progress", "tracking",
    "archives.answers", "archives.downloader", "archives.http", "archives.journal", "archives.params",
    "formats.registry", "lean_keras", "networks.registry", "papers", "parallel", "pipeline", "tuning",
)  # fmt: skip
_COUNTS = "tracking.provenance"  # of that package: what the report says of where runs came from
_LENGTH = 12  # hexadecimal digits: 48 bits


class Code:
    """The source files of this package."""

    def __init__(self, root: Path = ROOT) -> None:
        """Read nothing yet.

        Args:
            root: folder of the package; that of the code that runs, unless a test changes a copy.
        """
        self._root = root
        # What was read, by module: many runs share most of their code.
        self._trees: dict[str, ast.Module] = {}
        self._hashes: dict[str, str] = {}
        self._edges: dict[str, frozenset[str]] = {}

    def fingerprint(self, *modules: str) -> str:
        """Return a hash of all code that the modules run: of their syntax, without comments and docstrings.

        Args:
            modules: full names, or MODULE:NAME where only that name is used; what they import, at their top or in a
                function, counts as well.
        """
        digest = hashlib.sha256(" ".join(modules).encode())
        for module in sorted(self.closure(modules)):
            digest.update(f"{module} {self._hash_of(module)}\n".encode())
        return digest.hexdigest()[:_LENGTH]

    def closure(self, modules: Iterable[str]) -> frozenset[str]:
        """Return the modules of this package that others import, and these themselves, but for NO_RESULT.

        Args:
            modules: as for ``fingerprint``.
        """
        found: set[str] = set()
        names = {name for module in modules for name in _with_packages(module.partition(":")[0])}
        waiting = {name for name in names if not changes_no_result(name)}
        while waiting:
            module = waiting.pop()
            found.add(module)
            waiting |= {name for name in self._imports(module) if not changes_no_result(name)} - found
        return frozenset(found)

    def _file(self, module: str) -> Path | None:
        """Return the file of a module of this package; None for what is none."""
        first, *rest = module.split(".")
        if first != PACKAGE:
            return None
        path = self._root.joinpath(*rest)
        candidates = (path / "__init__.py", path.with_suffix(".py")) if rest else (path / "__init__.py",)
        return next((one for one in candidates if one.is_file()), None)

    def _tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            path = self._file(module)
            assert path is not None
            self._trees[module] = _without_docstrings(ast.parse(path.read_bytes()))
        return self._trees[module]

    def _hash_of(self, module: str) -> str:
        """Return a hash of a module's syntax and of the templates beside it."""
        if module not in self._hashes:
            path = self._file(module)
            assert path is not None
            digest = hashlib.sha256(_dumped(self._tree(module)).encode())
            for file in sorted(path.parent.glob("templates/*")):
                digest.update(file.name.encode() + file.read_bytes())
            self._hashes[module] = digest.hexdigest()
        return self._hashes[module]

    def _imports(self, module: str) -> frozenset[str]:
        """Return the modules of this package that a module imports, with the packages that they stand in."""
        if module not in self._edges:
            found = {name for imported in _imported_names(self._tree(module)) for name in _with_packages(imported)}
            self._edges[module] = frozenset(name for name in found if self._file(name) is not None)
        return self._edges[module]


def changes_no_result(module: str) -> bool:
    """Tell whether a module is one of NO_RESULT, or in a package of it."""
    name = module.removeprefix(f"{PACKAGE}.")
    return name != _COUNTS and any(name == one or name.startswith(f"{one}.") for one in NO_RESULT)


def _dumped(node: object) -> str:
    """Write syntax down, the same under every Python: newer ones have more fields, which are empty in older code."""
    if isinstance(node, ast.AST):
        parts = (f"{name}={_dumped(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(parts)})"
    return f"[{','.join(map(_dumped, node))}]" if isinstance(node, list) else repr(node)


def _with_packages(module: str) -> list[str]:
    """Return a module and the packages that it stands in, which are imported before it."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield what is imported; of ``from a import b`` both a and a.b, which may be a module."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:  # relative imports are refused by ruff
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)
