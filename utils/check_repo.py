"""Checks that every model folder is whole: registered, documented, tested, converted, and with docstrings.

Run from anywhere as `python utils/check_repo.py`; prints every problem and exits with 1 if there is one.
"""

import ast
import re
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
# Models whose checkpoints another model's script converts as well: model -> name in the script's file name.
CONVERTED_BY: dict[str, str] = {"campplus": "s3gen", "hiftnet": "s3gen", "s3_tokenizer": "s3gen"}


def model_folders(root: Path) -> list[Path]:
    """The folders below `src/tts_models/models/` that hold Python files."""
    return sorted(path.parent for path in (root / "src/tts_models/models").glob("*/__init__.py"))


def assigned_value(path: Path, name: str) -> object:
    """The literal assigned to `name` at the top of the Python file `path`, or `None`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    return None


def registered_folders(root: Path) -> dict[str, dict[str, str]]:
    """The registration table by model folder, which mostly has the name of the model type."""
    registration = root / "src/tts_models/registration.py"
    folders = assigned_value(registration, "MODEL_FOLDERS") or {}
    registered = assigned_value(registration, "REGISTERED_MODELS")
    return {folders.get(model_type, model_type): classes for model_type, classes in registered.items()}


def documented_pages(toctree: Path) -> set[str]:
    """Every `local:` entry of a table of contents."""
    return set(re.findall(r"^\s*-?\s*local:\s*(\S+)", toctree.read_text(encoding="utf-8"), re.MULTILINE))


def check_registration(root: Path, model: str) -> list[str]:
    """The model is in the registration table, and its classes are public names of the package."""
    package = root / "src/tts_models"
    classes = registered_folders(root).get(model)
    if not classes:
        return ["is not in REGISTERED_MODELS of registration.py"]
    public = set(assigned_value(package / "__init__.py", "__all__"))
    lazy = assigned_value(package / "__init__.py", "_PUBLIC_NAMES")
    problems = [] if "AutoConfig" in classes and "AutoModel" in classes else ["has no AutoConfig or AutoModel class"]
    known = public & {name for names in lazy.values() for name in names}
    return problems + [f"{name} is not a public name of the package" for name in sorted(set(classes.values()) - known)]


def check_documentation(root: Path, model: str) -> list[str]:
    """There is a page, and the table of contents lists it."""
    page, source = f"model_doc/{model}", root / "docs/source"
    problems = [] if (source / f"{page}.md").is_file() else [f"has no docs/source/{page}.md"]
    if page not in documented_pages(source / "_toctree.yml"):
        problems.append(f"{page} is not in docs/source/_toctree.yml")
    return problems


def check_tests(root: Path, model: str) -> list[str]:
    """There is a test folder with the model's tester, through which the common tests run on it."""
    tester = f"tests/models/{model}/tester.py"
    return [] if (root / tester).is_file() else [f"has no {tester}"]


def check_conversion(root: Path, model: str) -> list[str]:
    """There is a conversion script, its own or the one named in `CONVERTED_BY`."""
    script = f"conversion_scripts/convert_{CONVERTED_BY.get(model, model)}_to_hf.py"
    return [] if (root / script).is_file() else [f"has no {script}"]


def undocumented(path: Path) -> list[str]:
    """The public classes of one file that have no docstring."""
    public = assigned_value(path, "__all__") or []
    return [
        f"{path.name}: {node.name} has no docstring"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in public and not ast.get_docstring(node)
    ]


def check_docstrings(root: Path, model: str) -> list[str]:
    """Every public class of the model's files has a docstring."""
    return [
        problem
        for path in sorted((root / "src/tts_models/models" / model).glob("*.py"))
        for problem in undocumented(path)
    ]


CHECKS = (check_registration, check_documentation, check_tests, check_conversion, check_docstrings)


def check_contents(root: Path) -> list[str]:
    """Every page of the table of contents exists, and every page is in it."""
    source = root / "docs/source"
    listed = documented_pages(source / "_toctree.yml")
    present = {path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.md")}
    return [f"docs: {page} is listed but missing" for page in sorted(listed - present)] + [
        f"docs: {page} is not in _toctree.yml" for page in sorted(present - listed)
    ]


def check_repository(root: Path = ROOT) -> list[str]:
    """Every problem of the repository at `root`, one line each."""
    models = [folder.name for folder in model_folders(root)]
    problems = [f"{model}: {problem}" for model in models for check in CHECKS for problem in check(root, model)]
    registered = registered_folders(root)
    problems += [f"{model}: registered, but has no folder" for model in sorted(set(registered) - set(models))]
    return problems + check_contents(root)


def main() -> int:
    """Prints the problems; 1 if there are any."""
    problems = check_repository()
    print("\n".join(problems) or f"{len(model_folders(ROOT))} models: every check passed.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
