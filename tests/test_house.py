"""The house rules that no tool knows: one list of dependencies, documents that tell the truth."""

import ast
import fnmatch
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import timescope_lite

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "timescope_lite"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
MODULES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text()


def name_of(path: Path) -> str:
    """`timescope_lite/model/memory.py` -> `model.memory`; an `__init__.py` has the name of its
    folder ("" for the package itself).
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def kept_files() -> list[Path]:
    """Files that are, or are about to be, in git: the tracked ones and the new ones that it does
    not ignore.
    """
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout ({error})")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def documents() -> list[Path]:
    return [path for path in kept_files() if path.suffix == ".md"]


# --- one list of dependencies ---------------------------------------------------------------------


def pins() -> dict[str, str]:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), (
        "constraints.txt holds exact versions only, without local labels"
    )
    return {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines)
    }


def requirements(*extras: str) -> dict[str, Requirement]:
    listed = [
        Requirement(line)
        for line in [*DEPENDENCIES, *(line for extra in extras for line in EXTRAS[extra])]
    ]
    return {canonicalize_name(r.name): r for r in listed if r.name != PROJECT["project"]["name"]}


def test_dependencies_are_ranges_and_every_one_has_a_pin_inside_its_range() -> None:
    pinned = pins()
    for name, requirement in requirements("lab", "dev").items():
        assert name in pinned, f"{name} is in pyproject.toml but has no version in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), (
            f"{name}: {pinned[name]} is outside {requirement.specifier}"
        )
        assert not any(part.operator == "==" for part in requirement.specifier), (
            f"{name}: exact versions belong in constraints.txt"
        )
    assert not {"torchvision", "torchaudio", "timm", "decord"} & set(pinned), (
        "these pull another build of torch, or overwrite decord2"
    )


def test_the_environment_of_conda_holds_no_list_of_its_own() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert [re.split(r"[=<>]", entry)[0] for entry in conda] == ["python", "pip"]
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(
        conda[0].split("=")[1] + ".9"
    )
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    assert f"{PROJECT['project']['name']}[lab]" in EXTRAS["dev"]


def test_the_pre_commit_hooks_use_the_pinned_ruff_and_fetch_nothing_else() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {tuple(hook["additional_dependencies"]) for hook in repositories[0]["hooks"]} == {
        (f"ruff=={pins()['ruff']}",)
    }


DISTRIBUTION = {
    "decord": "decord2",
    "IPython": "ipython",
    "yaml": "pyyaml",
    "mpl_toolkits": "matplotlib",
}
ONLY_ON_COLAB = {"google"}


def third_party(nodes: list[ast.stmt]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    foreign = names - set(sys.stdlib_module_names) - {"timescope_lite"} - ONLY_ON_COLAB
    return {canonicalize_name(DISTRIBUTION.get(name, name)) for name in foreign}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_a_module_imports_is_declared(path: Path) -> None:
    everything = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.stmt)]
    undeclared = third_party(everything) - set(requirements("lab", "cluster"))
    assert not undeclared, f"{path.name} imports {undeclared}: declare it in pyproject.toml"
    if "classroom" not in path.relative_to(PACKAGE).parts:
        at_import = third_party(tree_of(path).body) - set(requirements())
        assert not at_import, (
            f"{path.name} imports {at_import} at its top, which only the extra `lab` installs: "
            "import it where it is used"
        )


def test_what_is_not_python_travels_in_the_wheel() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["timescope_lite"]
    for path in kept_files():
        if PACKAGE in path.parents and path.suffix != ".py":
            inside = path.relative_to(PACKAGE).as_posix()
            covered = any(
                fnmatch.fnmatch(inside, pattern.replace("**/", "")) for pattern in patterns
            )
            assert covered, (
                f"timescope_lite/{inside} is not among the package-data of pyproject.toml"
            )


# --- documents ------------------------------------------------------------------------------------


def fenced(text: str, *languages: str) -> list[str]:
    """Commands of fenced blocks in these languages: one per line, comments cut, continued lines
    joined.
    """
    blocks = re.findall(
        rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*|^#.*", "", line).strip() for line in lines) if line]


def plain(command: str) -> str:
    """A command without what differs between shells: where the tool lies, the slash, how a pattern
    is expanded, blanks.
    """
    command = re.sub(r"\(Get-ChildItem (\S+)\)", r"\1", command).replace("\\", "/")
    return " ".join(re.sub(r"\.venv/(bin|Scripts)/", "", command).split())


def make_says(*arguments: str) -> list[str]:
    """The commands that `make` would run, in plain form; the install is forced to be among them."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES")
    }  # not those of `make release`
    done = subprocess.run(
        ["make", "-n", *arguments, "-W", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=own,
    )
    assert done.returncode == 0, f"make {' '.join(arguments)}: {done.stderr}"
    commands = [plain(line) for line in done.stdout.replace("\\\n", " ").splitlines()]
    return [
        c
        for c in commands
        if re.match(r"python -m (pip|pytest|build)|ruff|mypy|lint-imports|timescope-lite", c)
    ]


@cache
def commands_of_the_cli() -> dict[str, set[str]]:
    """Name of every command (`data check` for one in a group) -> its options, asked of the command
    line itself.
    """
    import typer

    from timescope_lite import cli

    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        for child, sub in getattr(command, "commands", {}).items():
            walk(sub, f"{name} {child}".strip())
        if not hasattr(command, "commands"):
            found[name] = {option for parameter in command.params for option in parameter.opts} | {
                "--help"
            }

    walk(typer.main.get_command(cli.app), "")
    return found


def shown_commands(prefix: str) -> list[tuple[str, str]]:
    """(document, command) for every fenced command that starts with `prefix`, in plain form."""
    shown = [
        (path.name, plain(c))
        for path in documents()
        for c in fenced(path.read_text(), "sh", "zsh", "powershell")
    ]
    return sorted({(where, command) for where, command in shown if command.startswith(prefix)})


def test_every_make_command_shown_exists() -> None:
    shown = shown_commands("make ")
    assert {"make course", "make test"} <= {command for _, command in shown}
    for where, command in shown:
        arguments = re.findall(r'[A-Z]+="[^"]*"|\S+', command)[1:]
        assert make_says(*(a.replace('"', "") for a in arguments)) or arguments == ["clean"], (
            f"{where}: {command} would do nothing"
        )


def test_every_target_of_the_makefile_runs_dry_and_is_explained() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in targets.group(1).split():
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
        assert f"make {target} " in help_text or target in {"help", "install", "lint"}, (
            f"make help does not mention {target}"
        )


def test_every_command_line_shown_exists_with_its_options() -> None:
    known = commands_of_the_cli()
    shown = shown_commands("timescope-lite ")
    assert shown
    for where, command in shown:
        words = command.split()[1:]
        names = [" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known]
        assert names, (
            f"{where} shows `{command}`, but the command line knows only: {', '.join(known)}"
        )
        unknown = {word for word in words if re.match(r"--?[a-z]", word)} - known[names[0]]
        assert not unknown, (
            f"{where} shows `{command}`, but {names[0]} has no option {', '.join(unknown)}"
        )


def test_every_command_that_measures_a_card_is_one() -> None:
    from timescope_lite.bench_gpu.__main__ import parse

    shown = shown_commands("python -m timescope_lite.")
    assert shown
    for where, command in shown:
        python, _, module, *arguments = command.split()
        assert (python, module) == ("python", "timescope_lite.bench_gpu"), where
        assert parse(arguments).out  # exits where an option is unknown


def test_the_readme_lists_every_command() -> None:
    missing = {name.split()[0] for name in commands_of_the_cli()} - {
        command.split()[1] for _, command in shown_commands("timescope-lite ")
    }
    assert not missing, f"commands that README.md does not show: {', '.join(sorted(missing))}"


def calls_of_the_cli() -> dict[str, set[tuple[str, str]]]:
    """Function of the command line -> the (module, function) pairs that it fetches by `_call` when
    it runs.
    """
    found: dict[str, set[tuple[str, str]]] = {}
    for function in (
        node for node in tree_of(PACKAGE / "cli.py").body if isinstance(node, ast.FunctionDef)
    ):
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "_call"
                and all(isinstance(a, ast.Constant) for a in node.args)
            ):
                found.setdefault(function.name, set()).add(
                    tuple(ast.literal_eval(a) for a in node.args)
                )
    return found


def test_only_commands_with_nothing_behind_them_are_marked_not_yet() -> None:
    def exists(module: str, function: str) -> bool:
        path = PACKAGE / f"{module.replace('.', '/')}.py"
        return path.exists() and any(
            getattr(node, "name", "") == function for node in tree_of(path).body
        )

    empty = {
        name.split("_")[0]
        for name, calls in calls_of_the_cli().items()
        if not all(exists(*call) for call in calls)
    }
    marked = set(re.findall(r"^timescope-lite (\w+).*# not yet:", README, re.MULTILINE))
    assert marked == empty, (
        "README.md marks with `# not yet:` exactly the commands whose function does not exist"
    )


@pytest.mark.parametrize("shell", ["zsh", "powershell"])
def test_the_commands_spelled_out_are_those_of_the_makefile(shell: str) -> None:
    install, course, test = make_says("install"), make_says("course"), make_says("test")
    spelled = [plain(command) for command in fenced(README, shell)]
    assert spelled[0] in {"python3 -m venv .venv", "py -m venv .venv"}
    assert spelled[1:] == [*install, *course[len(install) :], *test[len(install) :]]


def test_no_shown_command_is_of_an_unknown_kind() -> None:
    kinds = (
        r"make |timescope-lite |(python|python3|py) -m (venv|pip|pytest)|ruff |mypy|lint-imports"
        r"|conda |source |rm -rf |Remove-Item |pytest |deactivate"
        r"|python -m timescope_lite\.bench_gpu "
    )
    strange = [
        (where, command) for where, command in shown_commands("") if not re.match(kinds, command)
    ]
    assert not strange, (
        "no test covers these commands: teach tests/test_house.py how, or take them out"
    )


def test_ci_runs_exactly_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) or sys.platform == "win32"
    lines = script.read_text().splitlines()
    assert "set -eu" in lines and lines[-1] == "exec make test"
    assert "pip install" not in script.read_text(), (
        "there is one recipe for installing, in the Makefile"
    )


def test_links_between_documents_lead_somewhere() -> None:
    for path in documents():
        prose = re.sub(
            r"^```.*?^```|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL
        )
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if not re.match(r"[a-z]+:|#", target):
                linked = (path.parent / target.split("#")[0]).resolve()
                assert linked.exists() and ROOT in linked.parents, (
                    f"{path.relative_to(ROOT)} links to {target}, which is not in the repository"
                )


def messages_of_the_code() -> str:
    """Every string in the package, the values that are put into it left out, and the Makefile."""
    parts = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for node in (node for path in MODULES for node in ast.walk(tree_of(path))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts.append(
                "".join(
                    str(value.value) if isinstance(value, ast.Constant) else "\0"
                    for value in node.values
                )
            )
    return "\n".join(parts)


# What other programs say: pip, Jupyter, Python, PowerShell, decord's own metadata.
SAID_BY_OTHERS = {
    "ERROR: No matching distribution found for torch...",
    "No such kernel named python3",
    "No module named 'timescope_lite'",
    "decord: AttributeError: module 'decord' has no attribute 'VideoReader'. Run: ...",
    "pip check",
    "decord 0.6.0",
    "notebooks/*.ipynb",
    ".venv",
    "make course",
    "events file ... is not valid JSON (Expecting ',' delimiter: line 4 column 5 (char 60))",
}


def test_the_messages_in_troubleshooting_are_those_of_the_code() -> None:
    """Word for word: where a value stands in the page, the code puts one in."""
    code = messages_of_the_code()
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = {
        text
        for bold in re.findall(r"^\*\*(.*?)\*\*", page, re.MULTILINE)
        for text in re.findall(r"`([^`]+)`", bold)
    }
    assert SAID_BY_OTHERS <= quoted, f"no longer on the page: {SAID_BY_OTHERS - quoted}"
    numbers_and_names = (
        r"(?<!\w)\d[\w.]*|'[^']*'|\[[^\]]*\]|\.\.\.|(?<=are )porter, painter, "
        r"pipe|tiny\.safetensors"
    )
    value = numbers_and_names + (
        r"|>=|No module named|Permission denied|Kernel died before replying to "
        r"kernel_info|^(?:packages|checkpoint|torch|numpy)\b"
    )

    def known(piece: str) -> bool:
        piece = piece.strip(" .:,;()")
        return (
            len(piece) < 4
            or piece in code
            or any(piece[:i] in code and known(piece[i:]) for i in range(len(piece) - 4, 10, -1))
        )

    for message in sorted(quoted - SAID_BY_OTHERS):
        unknown = [piece for piece in re.split(value, message) if not known(piece)]
        assert not unknown, (
            f"docs/troubleshooting.md quotes {message!r}, but {unknown} is not in the code"
        )


def test_the_readme_keeps_the_places_of_its_generated_blocks() -> None:
    for block in ("claim", "shelves"):
        assert README.count(f"<!-- {block}:begin -->") == README.count(f"<!-- {block}:end -->") == 1


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert timescope_lite.__version__ == citation["version"] == newest.group(1)
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"


def test_paper_and_this_work_are_cited_apart() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert "2509.26360" in paper["url"] and len(paper["authors"]) == 8
    assert "preferred-citation" not in citation, "it would replace the entry of this work"
    assert not {author["family-names"] for author in paper["authors"]} & {
        author.get("family-names") for author in citation["authors"]
    }


# Written in pieces, so that this file does not contain them.
MACHINE = [r"/wo" r"rk/", r"/ro" r"ot/", r"/tmp/ve" r"nv"]
FOREIGN = [
    r"sand" r"box",
    r"DES" r"IGN\.md",
    r"\bAI ag" r"ent",
    r"sub-?ag" r"ent",
    r"pypi\.o" r"rg",
    r"pythonho" r"sted",
    r"conda\.anaco" r"nda",
]
# Tests may hold a personal path as an example of what is refused, and may look at the folder beside
# the repository.
NOT_BUT_IN_TESTS = r"/home/\w+/|/Users/\w+/|C:\\+Users|\.\./shared|shared/reference"


def test_no_file_speaks_of_a_machine_or_of_anything_outside_the_repository() -> None:
    pattern = re.compile("|".join(MACHINE + FOREIGN), re.IGNORECASE)
    found = []
    for path in kept_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group(0)}" for match in pattern.finditer(text)]
        if "tests" not in path.relative_to(ROOT).parts:
            found += [
                f"{path.relative_to(ROOT)}: {match.group(0)}"
                for match in re.finditer(NOT_BUT_IN_TESTS, text)
            ]
    assert not found, "\n".join(found)


# --- the architecture -----------------------------------------------------------------------------


def shelves() -> dict[str, str]:
    """Rows of the table 'The shelves' in docs/architecture.md: path -> what."""
    section = (
        (ROOT / "docs" / "architecture.md").read_text().split("## The shelves")[1].split("\n## ")[0]
    )
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE))


def test_every_shelf_exists_and_everything_has_a_shelf() -> None:
    listed = set(shelves())
    present = {
        f"timescope_lite/{path.name}" + ("/" if path.is_dir() else "")
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py")
        or (path.is_dir() and path.name != "__pycache__")
    }
    assert listed - present == set(), "docs/architecture.md lists what does not exist"
    assert present - listed == set(), "docs/architecture.md does not list these"


@pytest.mark.parametrize("folder", ["world", "memory", "model", "datasets", "classroom"])
def test_a_shelf_names_its_modules(folder: str) -> None:
    row = shelves()[f"timescope_lite/{folder}/"]
    named = set(re.findall(r"`([\w/]+)`", row))
    present = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    folders = {
        f"{path.name}/"
        for path in (PACKAGE / folder).iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert named == present | folders, f"docs/architecture.md on {folder}/"


def test_the_package_imports_without_torch() -> None:
    code = "import sys, timescope_lite; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_this_installation_is_this_checkout() -> None:
    assert Path(timescope_lite.__file__).resolve().parent == PACKAGE
    try:
        installed = importlib.metadata.version("timescope-lite")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is imported from the folder, not installed")
    assert installed == timescope_lite.__version__, (
        "the version changed after the installation: run `make install`"
    )
