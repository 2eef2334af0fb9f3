"""A memory on disk: two safetensors files and, written last, a manifest that vouches for them.

    hvr.safetensors, dvr.safetensors    layer3.k, layer3.v, ... each (1, H_kv, N, D)
    memory.json                         sizes, whose memory it is, sha256 of both files

Nothing is believed unread: the manifest's sizes are compared with the tensors' headers, the hashes
with the files, every number is looked at. File names are fixed, so a manifest cannot point outside.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from timescope_lite.common import (
    UserError,
    from_mapping,
    read_json,
    sha256_of,
    write_json,
    write_tensors,
)
from timescope_lite.memory.config import MemoryConfig
from timescope_lite.memory.hvr import LayerKV

if TYPE_CHECKING:
    from timescope_lite.memory.memory import Memory

FORMAT = 1
MANIFEST = "memory.json"
KINDS = ("hvr", "dvr")
SAMPLES, SAMPLE_BYTES = 64, 1 << 16


class Owner(Protocol):
    """What a saved memory is held against: a model that can say who it is."""

    @property
    def device(self) -> torch.device: ...

    def fingerprint(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of memory.json."""

    format: int
    model: str
    video: dict[str, Any] | None
    config: dict[str, Any]
    tokens_per_frame: int
    clock: int
    frames: int
    segments: int
    layers: int
    heads: int
    head_width: int
    dtype: str
    sha256: dict[str, str]


def fingerprint_of_file(path: Path) -> str:
    """Hash of a file's size and of 64 stretches spread over it: enough to tell two videos apart
    without reading a film of gigabytes. UserError if it cannot be read.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); name a file that exists") from None
    return digest.hexdigest()


def describe_video(path: Path) -> dict[str, Any]:
    """Name and fingerprint of a video file, as a memory keeps them."""
    return {"name": path.name, "fingerprint": fingerprint_of_file(path)}


def save(memory: Memory, folder: Path) -> Path:
    """Write a memory; a manifest that stood there before is removed first, so that a write that is
    killed leaves no manifest beside other files.
    """
    if not memory.num_segments:
        raise UserError("an empty memory cannot be saved: encode a video first")
    path = folder / MANIFEST
    # From here until the last line this folder holds no memory, and says so.
    path.unlink(missing_ok=True)
    last = memory.num_segments - 1
    files = {"hvr": memory.hvr, "dvr": memory.dvr.reload(0, last)}
    hashes = {}
    for kind, layers in files.items():
        tensors = {}
        for number, layer in enumerate(layers):
            tensors[f"layer{number}.k"] = layer.k
            tensors[f"layer{number}.v"] = layer.v
        hashes[kind] = sha256_of(write_tensors(folder / f"{kind}.safetensors", tensors))
    keys = files["hvr"][0].k
    manifest = Manifest(
        format=FORMAT,
        model=memory.model_id,
        video=memory.video,
        config=dataclasses.asdict(memory.config),
        tokens_per_frame=memory.tokens_per_frame,
        clock=memory.clock,
        frames=memory.num_valid,
        segments=memory.num_segments,
        layers=len(files["hvr"]),
        heads=keys.shape[1],
        head_width=keys.shape[3],
        dtype=str(keys.dtype).removeprefix("torch."),
        sha256=hashes,
    )
    return write_json(path, dataclasses.asdict(manifest))


def load(
    cls: type[Memory], folder: Path, model: Owner, r: int | None, video: Path | None
) -> Memory:
    """Read a memory back after every check; see `Memory.load`."""
    manifest = _read_manifest(folder)
    _check_owner(folder, manifest, model, r, video)
    memory = _empty(cls, folder, manifest, model)
    tensors = {kind: _read_layers(folder, kind, manifest, memory) for kind in KINDS}
    S, K = memory.frames_per_segment, memory.tokens_per_frame
    # Segment by segment through `append`, the one way in: what it checks holds for a file, too.
    for segment in range(manifest.segments):
        dense = [layer.span(segment * S * K, (segment + 1) * S * K) for layer in tensors["dvr"]]
        first, last = segment * memory.slots, (segment + 1) * memory.slots
        pooled = [layer.span(first, last) for layer in tensors["hvr"]]
        memory.append(dense, pooled)
    memory.holistic.trim()
    memory.num_valid = manifest.frames
    return memory


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        half = any((folder / f"{kind}.safetensors").is_file() for kind in KINDS)
        why = "is half-written (memory.json is written last)" if half else "holds no saved memory"
        raise UserError(f"{folder} {why}; write it with `timescope-lite encode VIDEO -o {folder}`")
    raw = read_json(path, "manifest of the memory")
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else raw
        raise UserError(f"{path}: format {found!r}, this version reads {FORMAT}; encode it again")
    manifest = from_mapping(Manifest, raw, str(path))
    sizes = ("tokens_per_frame", "frames", "segments", "layers", "heads", "head_width")
    for name in sizes:
        value = getattr(manifest, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{path}: {name} is {value!r}, expected a whole number above 0")
    if isinstance(manifest.clock, bool) or not isinstance(manifest.clock, int):
        raise UserError(f"{path}: clock is {manifest.clock!r}, expected a whole number")
    if not _describes_video(manifest.video):
        raise UserError(
            f"{path}: video must be null, or name, fingerprint and duration_s of a file"
        )
    if not isinstance(manifest.sha256, dict) or set(manifest.sha256) != set(KINDS):
        raise UserError(f"{path}: sha256 must name {' and '.join(KINDS)}; encode the video again")
    return manifest


def _describes_video(video: Any) -> bool:
    """Whether this is what a memory keeps of its video: nothing, or texts and a positive length."""
    if video is None:
        return True
    if not isinstance(video, dict):
        return False
    duration_s = video.get("duration_s", 1.0)
    if isinstance(duration_s, bool) or not isinstance(duration_s, (int, float)):
        return False
    texts = isinstance(video.get("name"), str) and isinstance(video.get("fingerprint"), str)
    return texts and 0 < duration_s < float("inf")


def _check_owner(
    folder: Path, manifest: Manifest, model: Owner, r: int | None, video: Path | None
) -> None:
    """UserError if the memory is another model's, of another r, or of another file."""
    if manifest.model != model.fingerprint():
        raise UserError(
            f"the memory in {folder} was written by another model; encode the video with this one"
        )
    own_r = manifest.config.get("r") if isinstance(manifest.config, dict) else None
    if r is not None and r != own_r:
        raise UserError(f"the memory in {folder} has r={own_r}, not r={r}; leave r out, or encode")
    if video is None:
        return
    known = manifest.video or {}
    if known.get("fingerprint") != fingerprint_of_file(video):
        raise UserError(
            f"the memory in {folder} is of another video ({known.get('name', 'unknown')}) than "
            f"{video}; encode this one"
        )


def _empty(cls: type[Memory], folder: Path, manifest: Manifest, model: Owner) -> Memory:
    """A memory of the manifest's sizes without a segment."""
    path = folder / MANIFEST
    if not isinstance(manifest.config, dict):
        raise UserError(f"{path}: config must be an object; encode the video again")
    try:
        config = from_mapping(MemoryConfig, manifest.config, f"{path}: config")
    except TypeError as error:
        raise UserError(f"{path}: config does not fit ({error}); encode it again") from None
    S, most = config.frames_per_segment, manifest.segments * config.frames_per_segment
    if not most - S < manifest.frames <= most:
        raise UserError(
            f"{path}: {manifest.frames} frames do not fill {manifest.segments} segments of {S}; "
            "encode the video again"
        )
    return cls(
        config,
        manifest.tokens_per_frame,
        model.device,
        manifest.clock,
        model_id=manifest.model,
        video=manifest.video,
    )


def _read_layers(folder: Path, kind: str, manifest: Manifest, memory: Memory) -> list[LayerKV]:
    """Layers of one file, after its header, its hash and its numbers were looked at."""
    path = folder / f"{kind}.safetensors"
    per_segment = memory.slots
    if kind == "dvr":
        per_segment = memory.frames_per_segment * memory.tokens_per_frame
    tokens = manifest.segments * per_segment
    shape = [1, manifest.heads, tokens, manifest.head_width]
    names = [f"layer{number}.{part}" for number in range(manifest.layers) for part in "kv"]
    if not path.is_file():
        raise UserError(f"the memory in {folder} is half-written: {path.name} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            # The header first: nothing is read of a file that is not what the manifest says.
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}
            if found != dict.fromkeys(names, shape):
                raise UserError(
                    f"{path} does not hold {manifest.layers} layers of {shape}, as its manifest "
                    "says; encode the video again"
                )
            if sha256_of(path) != manifest.sha256[kind]:
                raise UserError(f"{path} was changed after it was written (sha256); encode again")
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); encode the video again") from None
    for name, tensor in tensors.items():
        if str(tensor.dtype) != f"torch.{manifest.dtype}":
            raise UserError(f"{path}: {name} is {tensor.dtype}, the manifest says {manifest.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: {name} holds numbers that are not finite; encode again")
    return [
        LayerKV(tensors[f"layer{number}.k"], tensors[f"layer{number}.v"])
        for number in range(manifest.layers)
    ]
