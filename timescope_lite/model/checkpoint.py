"""Checkpoints: safetensors that hold weights and, in a header or beside them, everything needed to
rebuild the model. No pickle is ever loaded, and nothing is built before the sizes agree.

Format 2 carries the whole vocabulary. Format 1, of version 0.1, carried the phrases alone: how its
words are inflected lies in assets/vocabulary_v1.json.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from timescope_lite.common import (
    UserError,
    atomic_path,
    from_mapping,
    git_commit,
    pick_device,
    read_json,
    sha256_of,
    write_json,
    write_tensors,
)
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import Vocabulary
from timescope_lite.version import __version__

FORMAT = "timescope-lite/2"
FORMATS = ("timescope-lite/1", FORMAT)
ASSETS = Path(__file__).resolve().parent.parent / "assets"
PACKAGED = {"tiny": ASSETS / "tiny.safetensors"}
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
HELP = "train one with `timescope-lite train`, or leave --checkpoint out for the shipped one"

CARD_TEXT = """---
license: cc-by-4.0
tags: [temporal-grounding, video, timescope-lite]
---
# A TimeScope-lite model

Finds the interval of a long video that holds the evidence for a task, coarse to fine over a
compressed and a detailed memory (after TimeScope, arXiv 2509.26360). It knows one simulated town
and nothing of other footage.

```python
from timescope_lite.model import TimeScope

model = TimeScope.from_pretrained({folder})
memory = model.encode_video("video.mp4")
print(model.ground(memory, [{task}]))
```

{parameters:,} parameters, {phrases:,} phrases, written by timescope-lite {version}.

```json
{about}
```
"""


# --- writing --------------------------------------------------------------------------------------


def save(path: Path, model: TimeScope) -> Path:
    """Write a checkpoint atomically, in half precision: if the disk is full the previous one
    survives. (A state to resume from keeps every bit: train.py.)
    """
    header = {name: json.dumps(value) for name, value in _configuration(model).items()}
    header["format"] = FORMAT
    tensors = {name: tensor.half() for name, tensor in _tensors(model).items()}
    return write_tensors(path, tensors, header)


def save_pretrained(model: TimeScope, folder: Path) -> Path:
    """Write a self-contained folder: config.json, a model card and, last, the weights with all
    their bits; returns the folder.
    """
    configuration = {"format": FORMAT} | _configuration(model)
    write_json(folder / CONFIG, configuration)
    # Weights come last: a folder without them is refused, one with other weights never arises.
    tasks = model.vocabulary.samples() or ["a task in words"]
    card = CARD_TEXT.format(
        folder=json.dumps(folder.name),
        task=json.dumps(tasks[0]),
        parameters=sum(p.numel() for p in model.parameters()),
        phrases=len(model.vocabulary.phrases),
        version=__version__,
        about=json.dumps(configuration["about"], indent=1),
    )
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_tensors(folder / WEIGHTS, _tensors(model))
    return folder


def _configuration(model: TimeScope) -> dict[str, Any]:
    """All that is needed to rebuild a model without its weights, as plain data."""
    encoder = model.frame_encoder
    return {
        "version": __version__,
        "model": model.config.as_dict(),
        "vocabulary": model.vocabulary.as_dict(),
        "encoder": None if encoder is None else dataclasses.asdict(encoder.config),
        "about": {"commit": git_commit()} | model.about,
    }


def _tensors(model: TimeScope) -> dict[str, Tensor]:
    """Weights by their names in a file: model.* and encoder.*."""
    tensors = {f"model.{name}": tensor for name, tensor in model.own_state().items()}
    if model.frame_encoder is not None:
        encoder = model.frame_encoder.state_dict()
        tensors |= {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    return tensors


# --- reading --------------------------------------------------------------------------------------


def from_pretrained(name: str | Path, device: torch.device | None = None) -> TimeScope:
    """A model by its packaged name, its folder, its file, or its name on the Hub; see
    `TimeScope.from_pretrained`.
    """
    device = device or pick_device()
    if str(name) in PACKAGED and not Path(name).exists():
        return from_manifest(ASSETS, "two_stage", device)
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, device)
    if path.is_file() or path.suffix == ".safetensors":
        return load(path, device)
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _from_folder(_download(str(name)), device)
    raise UserError(
        f"there is no model {str(name)!r}: expected a packaged name ({', '.join(PACKAGED)}), a "
        "folder of save_pretrained, a .safetensors file, or owner/name on the Hub"
    )


def _download(name: str) -> Path:
    """The snapshot of a repository on the Hugging Face Hub. UserError, in one line, without it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise UserError(
            f"{name!r} is no file or folder here, and the Hub needs huggingface_hub: "
            "python -m pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        # Connection errors of every client are OSError; the first line says enough.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name!r} is no file or folder here and could not be had from the Hub ({reason}); "
            f"check the name and the network, or take a packaged model: {', '.join(PACKAGED)}"
        ) from None


def _from_folder(folder: Path, device: torch.device) -> TimeScope:
    """A folder of `save_pretrained`, or one of checkpoints with a manifest (its two_stage)."""
    if (folder / CONFIG).is_file():
        configuration = read_json(folder / CONFIG, "configuration of the model")
        if not isinstance(configuration, dict):
            raise UserError(f"{folder / CONFIG}: expected an object")
        tensors = _read_tensors(folder / WEIGHTS)[1]
        return _build(configuration, tensors, folder / CONFIG, device)
    if (folder / "manifest.json").is_file():
        return from_manifest(folder, "two_stage", device)
    raise UserError(f"{folder} holds no model: {CONFIG} (save_pretrained) or manifest.json wanted")


def load(path: Path, device: torch.device | None = None) -> TimeScope:
    """Read a checkpoint file. UserError if it is missing, damaged, or not one of ours, saying
    which.
    """
    path = Path(path)
    header, tensors = _read_tensors(path)
    if header.get("format") not in FORMATS:
        raise UserError(
            f"{path} is a safetensors file, but not a checkpoint of this library (format "
            f"{header.get('format')!r}, expected {' or '.join(map(repr, FORMATS))})"
        )
    configuration: dict[str, Any] = {"format": header["format"]}
    for name in ("model", "vocabulary", "phrases", "encoder", "about"):
        try:
            configuration[name] = json.loads(header[name]) if name in header else None
        except json.JSONDecodeError as error:
            raise UserError(
                f"checkpoint {path}: {name} of its header is no JSON ({error})"
            ) from None
    return _build(configuration, tensors, path, device)


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; {HELP}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            return header, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"checkpoint {path} is damaged or not a safetensors file ({error})"
        ) from None


def _build(
    configuration: Mapping[str, Any],
    tensors: dict[str, Tensor],
    where: Path,
    device: torch.device | None,
) -> TimeScope:
    """A model from its configuration and weights, built only when the two agree."""
    if configuration.get("format") not in FORMATS:
        raise UserError(
            f"{where}: format {configuration.get('format')!r}, expected "
            f"{' or '.join(map(repr, FORMATS))}"
        )
    config = _model_config(configuration.get("model"), where)
    vocabulary = _vocabulary(configuration, where)
    _check_sizes(config, vocabulary, tensors, where)
    model = TimeScope(config, vocabulary, about=configuration.get("about") or {})
    _fill(model, tensors, "model.", where)
    if configuration.get("encoder") is not None:
        model.frame_encoder = _frame_encoder(configuration["encoder"], tensors, where)
    return model.to(device).eval()


def _model_config(values: Any, where: Path) -> ModelConfig:
    if not isinstance(values, dict) or not isinstance(values.get("decoder"), dict):
        raise UserError(f"checkpoint {where}: it does not say what model it is of")
    decoder = from_mapping(DecoderConfig, values["decoder"], f"{where}: decoder")
    return from_mapping(ModelConfig, values | {"decoder": decoder}, f"{where}: model")


def _vocabulary(configuration: Mapping[str, Any], where: Path) -> Vocabulary:
    if configuration["format"] == FORMAT:
        return Vocabulary.from_dict(configuration.get("vocabulary") or {}, str(where))
    language = read_json(ASSETS / "vocabulary_v1.json", "language of format 1")
    phrases = configuration.get("phrases")
    return Vocabulary.from_dict(language | {"phrases": phrases}, str(where))


def _frame_encoder(values: dict[str, Any], tensors: dict[str, Tensor], where: Path) -> FrameEncoder:
    sizes = values | {"fields": tuple(values.get("fields", ()))}
    config = from_mapping(FrameEncoderConfig, sizes, f"{where}: encoder")
    project = tensors.get("encoder.project.weight")
    width = config.tokens_per_frame * config.feature_width
    if project is None or project.shape[0] != width:
        raise UserError(f"checkpoint {where}: its frame encoder has other sizes than it says")
    encoder = FrameEncoder(config)
    _fill(encoder, tensors, "encoder.", where)
    return encoder.requires_grad_(False)


def _check_sizes(
    config: ModelConfig, vocabulary: Vocabulary, tensors: Mapping[str, Tensor], where: Path
) -> None:
    """UserError unless the tensors have the sizes that the configuration claims: a header of 19 KB
    may claim a hundred thousand layers, and building them takes minutes.
    """
    decoder, C = config.decoder, config.decoder.width
    heads = decoder.heads + 2 * decoder.kv_heads
    expected = {
        "model.words": (len(vocabulary.words), C),
        "model.features_in.weight": (C, config.feature_width),
        "model.slot": (config.tokens_per_frame, C),
        "model.decoder.blocks.0.qkv.weight": (heads * decoder.head_width, C),
        "model.decoder.blocks.0.gate_up.weight": (2 * decoder.mlp_width, C),
    }
    # Layers first: everything else of a model is as large as these tensors say.
    layers = sum(name.endswith(".qkv.weight") for name in tensors)
    if layers != decoder.layers:
        raise UserError(f"checkpoint {where} claims {decoder.layers} layers and holds {layers}")
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != shape:
            raise UserError(
                f"checkpoint {where}: {name} is {found}, its configuration says {shape}"
            )
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"checkpoint {where}: {name} holds numbers that are not finite")


def _fill(module: torch.nn.Module, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
    own = {
        # Half precision is for the file; everything is computed from fp32 weights.
        name.removeprefix(prefix): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise UserError(f"checkpoint {path} does not fit its own configuration: {said}") from None


# --- folders of checkpoints -----------------------------------------------------------------------


def write_manifest(folder: Path, systems: dict[str, dict[str, str]]) -> Path:
    """`manifest.json` of a folder of checkpoints: system -> file, sha256, result."""
    entries = {
        name: entry | {"sha256": sha256_of(Path(folder) / entry["file"])}
        for name, entry in sorted(systems.items())
    }
    return write_json(Path(folder) / "manifest.json", entries)


def manifest_of(folder: Path) -> dict[str, dict[str, str]]:
    """The manifest of a folder of checkpoints: system -> file, sha256, result. UserError, naming
    the system, for an entry that is incomplete or whose file lies elsewhere.
    """
    path = Path(folder) / "manifest.json"
    entries = read_json(path, "manifest of checkpoints")
    if not isinstance(entries, dict):
        raise UserError(f"{path}: expected an object, system -> file, sha256, result")
    for system, entry in entries.items():
        if not isinstance(entry, dict) or not {"file", "sha256"} <= set(entry):
            raise UserError(f"{path}: {system!r} needs the keys file and sha256; write it anew")
        if Path(str(entry["file"])).name != entry["file"]:
            raise UserError(f"{path}: the file of {system!r} must lie in that folder itself")
    return dict(entries)


def same_encoder(a: TimeScope, b: TimeScope) -> bool:
    """Whether two models see with the same frame encoder, weight for weight."""
    if a.frame_encoder is None or b.frame_encoder is None:
        return a.frame_encoder is b.frame_encoder
    other = b.frame_encoder.state_dict()
    own = a.frame_encoder.state_dict()
    return all(name in other and torch.equal(own[name], other[name]) for name in own)


def from_manifest(folder: Path, system: str, device: torch.device | None = None) -> TimeScope:
    """The checkpoint of `system` in a folder with a manifest; a file that changed since it was
    listed is refused.
    """
    manifest = manifest_of(folder)
    if system not in manifest:
        raise UserError(
            f"{folder} has no checkpoint of {system!r}; it has {', '.join(sorted(manifest))}"
        )
    path = Path(folder) / manifest[system]["file"]
    if path.is_file() and sha256_of(path) != manifest[system]["sha256"]:
        raise UserError(
            f"checkpoint {path} is not the one its manifest lists (sha256 differs); restore the "
            "file or rebuild the manifest"
        )
    return load(path, device)
