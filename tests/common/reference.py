"""Reference cases: reading them, choosing the code that runs them, and comparing numbers.

A case is a folder with a `case.json` and, mostly, a `tensors.safetensors`; a table is a JSON file beside such folders.
`tests/models/<model>/reference*.py` registers the runners of a model:

    @reference_runner("snac", kinds=("full_*", "tiny_*"), needs=("inputs.audio", "outputs.latents"))
    def run_autoencoder(case: ReferenceCase) -> Iterator[Check]:
        yield case.check("latents", model.encoder(...), tolerance="latents")

A runner is eligible when the case holds everything in `needs`; among those the best match of the folder's name wins.
So a new folder name with known content still runs, and content that no runner knows is reported as a failure.
"""

import fnmatch
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .fill import fill_state_dict


EXACT = "exact"


@dataclass(frozen=True)
class Check:
    """One compared quantity: a row of the checker's table.

    Attributes:
        quantity (`str`): What was compared.
        max_abs_error (`float`): Largest absolute difference; for exact quantities the number of unequal entries.
        relative_l2_error (`float`): Norm of the difference over the norm of the expectation.
        tolerance (`float` or `str`): Allowed largest absolute difference, or `"exact"`.
        passed (`bool`): The verdict.
        note (`str`): Why it failed, where numbers cannot say it.
    """

    quantity: str
    max_abs_error: float
    relative_l2_error: float
    tolerance: float | str
    passed: bool
    note: str = ""


def compare(quantity: str, actual: Any, expected: Any, tolerance: float | str = EXACT) -> Check | None:
    """Compares two tensors, or anything `torch.as_tensor` takes; for exact quantities also any two Python values.

    `None` where `expected` is: a case need not hold every output.
    """
    if expected is None:
        return None
    if tolerance == EXACT and not isinstance(expected, torch.Tensor):
        equal = actual == expected
        note = "" if equal else f"got {_shorten(actual)}, expected {_shorten(expected)}"
        return Check(quantity, float(not equal), float(not equal), EXACT, equal, note)
    actual = torch.as_tensor(actual).detach().to("cpu", torch.float64)
    expected = torch.as_tensor(expected).detach().to("cpu", torch.float64)
    if actual.shape != expected.shape:
        note = f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        return Check(quantity, float("inf"), float("inf"), tolerance, False, note)
    # Equal infinities have no difference, and where upstream has no number none is expected.
    is_same = (actual == expected) | (actual.isnan() & expected.isnan())
    difference = (actual - expected).masked_fill(is_same, 0.0)
    if tolerance == EXACT:
        unequal = float((difference != 0).sum())
        return Check(quantity, unequal, _relative_norm(difference, expected), EXACT, unequal == 0)
    largest = difference.abs().max().item() if difference.numel() else 0.0
    # A NaN compares false and so fails.
    return Check(quantity, largest, _relative_norm(difference, expected), tolerance, largest <= tolerance)


def compare_rows(quantity: str, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Check:
    """Compares many small things exactly; the error is the number of unequal ones, the note names them."""
    unequal = [name for name in expected if name not in actual or actual[name] != expected[name]]
    note = f"unequal: {', '.join(map(str, unequal))}" if unequal else ""
    return Check(quantity, float(len(unequal)), len(unequal) / max(len(expected), 1), EXACT, not unequal, note)


def _relative_norm(difference: torch.Tensor, expected: torch.Tensor) -> float:
    return (difference.norm() / expected.norm().clamp_min(1e-30)).item()


def _shorten(value: Any, limit: int = 160) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass
class ReferenceCase:
    """A reference case or table on disk.

    Attributes:
        path (`Path`): Its folder, or the table's JSON file.
        device (`torch.device`): Where the runner should place the model.
        compared (`set[str]`): Names of the stored outputs that a check has used.
    """

    path: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compared: set[str] = field(default_factory=set)

    @property
    def is_table(self) -> bool:
        """Whether this is a JSON table and not a folder."""
        return self.path.is_file()

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The parsed `case.json` or table."""
        file = self.path if self.is_table else self.path / "case.json"
        return json.loads(file.read_text(encoding="utf-8"))

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Every stored tensor by its full name, on the CPU; small integers widened to int64."""
        file = self.path / "tensors.safetensors"
        if self.is_table or not file.is_file():
            return {}
        small = (torch.int32, torch.int16, torch.int8, torch.uint8)
        return {name: t.long() if t.dtype in small else t for name, t in load_file(file).items()}

    @property
    def family(self) -> str:
        """Model family: stated by a case, the parent folder's name for a table."""
        return self.path.parent.name if self.is_table else self.spec.get("family", self.path.parent.name)

    @property
    def kind(self) -> str:
        """What kind of case: stated by a case, the file's or folder's name where it is not."""
        return self.label if self.is_table else self.spec.get("kind", self.label)

    @property
    def label(self) -> str:
        """The folder's name, or the table's file name without its suffix."""
        return self.path.stem if self.is_table else self.path.name

    @property
    def name(self) -> str:
        """The last two parts of the path, as printed; they need no readable file."""
        return f"{self.path.parent.name}/{self.label}"

    def holds(self, name: str) -> bool:
        """Whether the case has the tensor `inputs.…`/`outputs.…`/`weights.…`, or the field `name`."""
        is_tensor = name.startswith(("inputs.", "outputs.", "weights."))
        return name in (self.tensors if is_tensor else self.spec)

    def holds_any(self, names: str) -> bool:
        """Whether the case has one of `names`, which stand between vertical bars."""
        return any(map(self.holds, names.split("|")))

    def input(self, name: str) -> torch.Tensor:
        """The recorded input `name`, on the case's device."""
        return self.tensors[f"inputs.{name}"].to(self.device)

    def inputs(self, prefix: str) -> tuple[torch.Tensor, ...]:
        """The inputs `prefix.0`, `prefix.1`, … in order, on the case's device."""
        return tuple(tensor.to(self.device) for tensor in self._numbered(f"inputs.{prefix}."))

    def output(self, name: str) -> torch.Tensor | None:
        """The recorded output `name`, on the CPU, `None` where there is none; asking marks it as compared."""
        self.compared.add(f"outputs.{name}")
        return self.tensors.get(f"outputs.{name}")

    def num_outputs(self, prefix: str) -> int:
        """How many outputs `prefix.0`, `prefix.1`, … there are."""
        return len(self._numbered(f"outputs.{prefix}."))

    def _numbered(self, prefix: str) -> list[torch.Tensor]:
        indices = sorted(int(n[len(prefix) :]) for n in self.tensors if n.startswith(prefix))
        return [self.tensors[f"{prefix}{index}"] for index in indices]

    def state_dict(self, keys: Mapping[str, Sequence] | None = None) -> dict[str, torch.Tensor]:
        """Parameters in upstream's names: filled, scaled, then replaced by those that the case stores."""
        if keys is None:
            keys = self.spec["keys"]
        state_dict = fill_state_dict(keys, self.spec.get("weight_scale", ()))
        stored = {n.removeprefix("weights."): t for n, t in self.tensors.items() if n.startswith("weights.")}
        return state_dict | {name: tensor for name, tensor in stored.items() if name in state_dict}

    def tolerance(self, *names: str) -> float | str:
        """The stated tolerance of the first of `names` that has one: a number, or `"exact"`."""
        stated = self.spec.get("tolerance", {})
        for name in names:
            if name in stated:
                return EXACT if str(stated[name]).startswith(EXACT) else float(stated[name])
        raise KeyError(f"{self.name} states no tolerance for {' or '.join(names)}; it has {sorted(stated)}")

    def check(self, output: str, actual: Any, *tolerances: str) -> Check | None:
        """Compares `actual` with the stored `outputs.<output>`, by the tolerance stated for it or for `tolerances`.

        `None` where the case does not hold it.
        """
        if not self.holds(f"outputs.{output}"):
            return None
        return compare(output, actual, self.output(output), self.tolerance(output, *tolerances))

    def uncompared(self) -> list[str]:
        """Stored outputs that no check has used so far."""
        return sorted(n for n in self.tensors if n.startswith("outputs.") and n not in self.compared)


Runner = Callable[[ReferenceCase], Iterable[Check]]


@dataclass(frozen=True)
class _RegisteredRunner:
    family: str
    kinds: tuple[str, ...]
    needs: tuple[str, ...]
    table: bool
    run: Runner

    def rank(self, case: ReferenceCase) -> tuple[int, int] | None:
        """How well this runner suits the case (larger is better), or `None` where it cannot run it."""
        if self.table != case.is_table or not self._covers_family(case) or not all(map(case.holds_any, self.needs)):
            return None
        names = {case.kind, case.label}
        matching = [len(kind.rstrip("*")) for kind in self.kinds if any(fnmatch.fnmatch(n, kind) for n in names)]
        if not matching and not self.needs:
            return None
        return (max(matching, default=-1), len(self.needs))

    def _covers_family(self, case: ReferenceCase) -> bool:
        # A table does not state its family: one that was copied into a folder of another name is known by its own.
        return self.family == case.family or (case.is_table and case.family not in {r.family for r in _RUNNERS})


_RUNNERS: list[_RegisteredRunner] = []


def reference_runner(
    family: str, kinds: Sequence[str] = (), needs: Sequence[str] = (), table: bool = False
) -> Callable[[Runner], Runner]:
    """Registers a function that runs reference cases and yields a [`Check`] for every quantity.

    Args:
        family (`str`): The family that the cases state (a table's parent folder).
        kinds (`Sequence[str]`): Patterns for the folder's (a table's file) name; the longest match wins.
        needs (`Sequence[str]`): Tensors (`inputs.…`, `outputs.…`) and fields of `case.json` it cannot do without;
            where one of several is enough, they stand between vertical bars.
        table (`bool`): Whether it runs JSON tables and not case folders.
    """

    def register(run: Runner) -> Runner:
        _RUNNERS.append(_RegisteredRunner(family, tuple(kinds), tuple(needs), table, run))
        return run

    return register


def find_runner(case: ReferenceCase) -> Runner | None:
    """The runner that suits the case best, `None` where there is none."""
    load_runners()
    ranked = [(rank, entry.run) for entry in _RUNNERS if (rank := entry.rank(case)) is not None]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def load_runners() -> None:
    """Imports every `tests/models/<model>/reference*.py`, which registers its runners."""
    from tests import models

    for file in sorted(Path(models.__path__[0]).glob("*/reference*.py")):
        importlib.import_module(f"tests.models.{file.parent.name}.{file.stem}")


def find_cases(paths: Iterable[Path], device: torch.device | str = "cpu") -> list[ReferenceCase]:
    """Every case folder and table below `paths`, sorted; a JSON file inside a case folder belongs to that case."""
    found: dict[Path, None] = {}
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*.json"))
        for file in files:
            found[_owner(file)] = None
    return [ReferenceCase(path, torch.device(device)) for path in found]


def _owner(file: Path) -> Path:
    """The case folder that a JSON file belongs to, or the file itself where it is a table."""
    return next((parent for parent in file.resolve().parents if (parent / "case.json").is_file()), file.resolve())


@torch.no_grad()
def run_case(case: ReferenceCase) -> Iterator[Check]:
    """Runs a case; what the runner raises or leaves uncompared, and a missing runner, are failed checks too."""
    try:
        runner = find_runner(case)
        if runner is None:
            yield _failed("(all)", "no runner")
            return
        checks = [check for check in runner(case) if check is not None]
        yield from checks or [_failed("(all)", "nothing was compared")]
    except Exception as error:
        yield _failed("(error)", f"{type(error).__name__}: {error}")
        return
    for name in case.uncompared():
        yield _failed(name, "stored, but no runner compares it")


def _failed(quantity: str, note: str) -> Check:
    return Check(quantity, float("nan"), float("nan"), EXACT, False, note)
