"""Checkpoints: one safetensors file holds weights and, in its header, everything needed to rebuild
the model. No pickle is ever loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from timescope_lite import __version__
from timescope_lite.common import (
    UserError,
    atomic_path,
    from_mapping,
    git_commit,
    read_json,
    write_json,
)
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.text import Vocabulary

FORMAT = "timescope-lite/1"


@dataclass
class Checkpoint:
    """A model ready to use; `encoder` is None for a model of symbolic frames. `about` says how it
    came to be (seed, steps, commit).
    """

    model: TimeScope
    encoder: FrameEncoder | None
    about: dict[str, Any]


def save(path: Path, model: TimeScope, encoder: FrameEncoder | None, about: dict[str, Any]) -> Path:
    """Write a checkpoint atomically, in half precision: if the disk is full the previous one
    survives. (A state to resume from keeps every bit: train.py.)
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    header = {
        "format": FORMAT,
        "version": __version__,
        "model": json.dumps(model.config.as_dict()),
        "phrases": json.dumps(model.vocabulary.phrases),
        "about": json.dumps({"commit": git_commit()} | about),
    }
    if encoder is not None:
        tensors |= {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
        header["encoder"] = json.dumps(dataclasses.asdict(encoder.config))
    return write_tensors(path, {name: tensor.half() for name, tensor in tensors.items()}, header)


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str] | None = None
) -> Path:
    """Write a safetensors file atomically. UserError where the disk refuses: what stood there
    before is kept.
    """
    try:
        with atomic_path(Path(path)) as temporary:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata=header,
            )
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write {path} ({error}); what stood there is kept: make room, or choose "
            "another folder"
        ) from None
    return Path(path)


def load(path: Path, device: torch.device | None = None) -> Checkpoint:
    """Read a checkpoint. UserError if it is missing, damaged, or not one of ours, saying which."""
    header, tensors = _read(Path(path))
    config = json.loads(header["model"])
    config["decoder"] = from_mapping(DecoderConfig, config["decoder"], f"{path}: decoder")
    model_config = from_mapping(ModelConfig, config, f"{path}: model")
    vocabulary = Vocabulary(tuple(json.loads(header["phrases"])))
    model = TimeScope(model_config, vocabulary)
    _fill(model, tensors, "model.", path)
    encoder = None
    if "encoder" in header:
        sizes = json.loads(header["encoder"])
        encoder = FrameEncoder(
            from_mapping(
                FrameEncoderConfig, sizes | {"fields": tuple(sizes["fields"])}, f"{path}: encoder"
            )
        )
        _fill(encoder, tensors, "encoder.", path)
        encoder = encoder.to(device).eval().requires_grad_(False)
    return Checkpoint(model.to(device).eval(), encoder, json.loads(header["about"]))


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} does not exist; train one with `timescope-lite train`, or leave "
            "--checkpoint out for the shipped one"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"checkpoint {path} is damaged or not a safetensors file ({error})"
        ) from None
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path} is a safetensors file, but not a checkpoint of this library (format "
            f"{header.get('format')!r}, expected {FORMAT!r})"
        )
    return header, tensors


def _fill(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path
) -> None:
    own = {
        name[len(prefix) :]: tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f"checkpoint {path} does not fit its own configuration: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from None


def sha256(path: Path) -> str:
    """Hash of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_manifest(folder: Path, systems: dict[str, dict[str, str]]) -> Path:
    """`manifest.json` of a folder of checkpoints: system -> file, sha256, result."""
    entries = {
        name: entry | {"sha256": sha256(Path(folder) / entry["file"])}
        for name, entry in sorted(systems.items())
    }
    return write_json(Path(folder) / "manifest.json", entries)


def manifest_of(folder: Path) -> dict[str, dict[str, str]]:
    """The manifest of a folder of checkpoints: system -> file, sha256, result."""
    return dict(read_json(Path(folder) / "manifest.json", "manifest of checkpoints"))


def same_encoder(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether two checkpoints see with the same frame encoder, weight for weight."""
    if a.encoder is None or b.encoder is None:
        return a.encoder is b.encoder
    other = b.encoder.state_dict()
    return all(
        name in other and torch.equal(tensor, other[name])
        for name, tensor in a.encoder.state_dict().items()
    )


def from_manifest(folder: Path, system: str, device: torch.device | None = None) -> Checkpoint:
    """The checkpoint of `system` in a folder with a manifest; a file that changed since it was
    listed is refused.
    """
    manifest = manifest_of(folder)
    if system not in manifest:
        raise UserError(
            f"{folder} has no checkpoint of {system!r}; it has {', '.join(sorted(manifest))}"
        )
    path = Path(folder) / manifest[system]["file"]
    if path.is_file() and sha256(path) != manifest[system]["sha256"]:
        raise UserError(
            f"checkpoint {path} is not the one its manifest lists (sha256 differs); restore the "
            "file or rebuild the manifest"
        )
    return load(path, device)
