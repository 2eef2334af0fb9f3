"""Frames of Tiny Town: the same everywhere, bands apart, and every field of the state readable from
what the model sees.
"""

import hashlib
import io
from itertools import combinations

import av
import numpy as np
import pytest

from timescope_lite.common import UserError
from timescope_lite.world import art, render
from timescope_lite.world.domain import (
    COLOURS,
    EFFECT,
    FIELD_SIZES,
    LASTING,
    NUM_PLACES,
    PLACE,
    PREPARATIONS,
    SHOWN,
    SIGN,
    TRACK0,
    VERBS,
    load_domains,
)

DOMAINS = load_domains("all")
FAMILIES = sorted({domain.family for domain in DOMAINS.values()})
EVERY_DOMAIN = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
FRAMES_SHA256 = {
    "house": "d7d610811be3603cae7e866206e475ed87eb4f39049bb22884d163b015b56d3f",
    "school": "7ab0f58e2a6766fc5c16f1e2a0f26a6e8c292801e03a63cfcc52a71231948c45",
    "museum": "19c6ff3b6b931618d977a58d69534d325de8ebe96ec107c8835f6ca453ccf808",
    "meadow": "1e99946556f4cfd34e1c91fdae1518d522e763cb375dbb15686e1127e56c031c",
    "farm": "a722cf4ac445d85c6f764b060bff89daa8689d51e61cf91359a30bf8290b015b",
    "harbour": "6f6a827a9da8bf232f415bc51fac9105e7f39a86d388fc80729d1a9d8e060b60",
    "market": "6ca4f9e72cd93ebc616411563c19790c3b3486d66c41b70954f9edf4e896fc16",
    "station": "2403f79a1fe010cd470950cae2ed64bd88fcd238b68102752e3f319506349f08",
}


def random_states(seed: int, number: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    states = np.stack([rng.integers(size, size=number) for size in FIELD_SIZES], axis=1)
    states[:, EFFECT] = np.arange(number) % (1 + len(LASTING))
    return states


def small_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the summed squared difference, in units of one pixel turning from black to white."""
    return float(np.sqrt(((a.astype(float) - b.astype(float)) ** 2).sum() / (3 * 255**2)))


def h264(frames: list[np.ndarray], fps: int) -> np.ndarray:
    """The frames after an mp4 round trip at crf 20."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "threads": "1"})
        stream.width = stream.height = render.SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def nearest(seen: np.ndarray, templates: np.ndarray) -> int:
    return int(
        ((templates.astype(int) - seen.astype(int)) ** 2)
        .reshape(len(templates), -1)
        .sum(1)
        .argmin()
    )


# --- the same everywhere


@pytest.mark.parametrize("name", FRAMES_SHA256)
def test_frames_hash_the_same_everywhere(name: str) -> None:
    frames = render.render_frames(DOMAINS[name], random_states(7, 22), np.arange(22) * 0.75)
    assert hashlib.sha256(frames.tobytes()).hexdigest() == FRAMES_SHA256[name]


@EVERY_DOMAIN
def test_a_frame_depends_on_its_own_row_and_time_only(domain) -> None:
    states, times_s = random_states(1, 12), np.arange(12) / 3
    together = render.render_frames(domain, states, times_s)
    for cached in (
        render._scene,
        render._backdrop,
        render._lasting,
        render._figure,
        render._sign,
        render._plate,
    ):
        cached.cache_clear()
    order = np.random.default_rng(0).permutation(12)
    alone = np.concatenate(
        [render.render_frames(domain, states[i : i + 1], times_s[i : i + 1]) for i in order]
    )
    assert np.array_equal(alone, together[order])


def test_rendering_leaves_its_cached_pieces_alone() -> None:
    domain, states = DOMAINS["harbour"], random_states(2, 30)
    first = render.render_frames(domain, states, np.zeros(30))
    first_copy = first.copy()
    first[:] = 0
    assert np.array_equal(render.render_frames(domain, states, np.zeros(30)), first_copy)


@pytest.mark.parametrize("fps", [1.0, 2.0, 4.0])
def test_whole_frame_rates_see_every_step_of_the_movement(fps: float) -> None:
    row = np.array([[5, 40, 0, 1, 6, 11, 16]] * 10)
    frames = list(render.render_video(DOMAINS["harbour"], row, fps))
    assert len(frames) == 10 * fps
    assert len({frame.tobytes() for frame in frames}) == art.STEPS


def test_video_shows_the_row_of_its_second() -> None:
    states = random_states(3, 9)
    frames = np.stack(list(render.render_video(DOMAINS["meadow"], states, fps=2.5)))
    times_s = np.arange(len(frames)) / 2.5
    assert len(frames) == 22
    assert np.array_equal(
        frames, render.render_frames(DOMAINS["meadow"], states[times_s.astype(int)], times_s)
    )


def test_model_size_is_the_rounded_mean_of_four() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    mean = frames.reshape(3, 64, 2, 64, 2, 3).astype(float).mean(axis=(2, 4))
    assert np.array_equal(render.to_model_size(frames), np.floor(mean + 0.5).astype(np.uint8))
    assert (render.to_model_size(np.full((1, 128, 128, 3), 255, dtype=np.uint8)) == 255).all()


# --- bands


@EVERY_DOMAIN
@pytest.mark.parametrize("lasting", range(1 + len(SHOWN)))
def test_each_field_changes_its_own_band_only(domain, lasting: int) -> None:
    base = np.array([3, 50, lasting, 1, 2, 3, 4])

    def changed(field: int, value: int) -> np.ndarray:
        rows = np.stack([base, base])
        rows[1, field] = value
        a, b = render.render_frames(domain, rows, np.zeros(2))
        return (a != b).any(axis=2)

    sign = changed(SIGN, 77)
    place = changed(PLACE, 100)
    other = changed(EFFECT, (lasting + 1) % (1 + len(SHOWN)))
    assert sign[: render.SCENE_TOP].any() and not sign[render.SCENE_TOP :].any()
    assert place[render.PLATE_TOP :].any() and not place[: render.SCENE_TOP].any()
    assert (
        other.any() and not other[: render.SCENE_TOP].any() and not other[render.PLATE_TOP :].any()
    )
    for track, (top, left) in enumerate(render.CELLS):
        difference = changed(TRACK0 + track, 16)
        cell = difference[top : top + art.CELL_H, left : left + art.CELL_W].copy()
        difference[top : top + art.CELL_H, left : left + art.CELL_W] = False
        assert cell.any() and not difference.any()


def test_cells_and_bands_do_not_overlap() -> None:
    used = np.zeros((render.SIZE, render.SIZE), dtype=int)
    used[: render.SCENE_TOP] += 1
    used[render.PLATE_TOP :] += 1
    for top, left in render.CELLS:
        used[top : top + art.CELL_H, left : left + art.CELL_W] += 1
    assert used.max() == 1


def test_the_longest_place_name_fits_its_sign() -> None:
    assert max(art.write(f"{colour} mmmm").shape[1] for colour in COLOURS) <= render.SIZE - 8


# --- everything can be told apart


def test_icons_differ_at_the_size_the_model_sees() -> None:
    small = {}
    for name in art.ICONS:
        canvas = art.Canvas(20, 20)
        canvas.box(0, 0, 20, 20, art.rgb("#c8cdbe"))
        canvas.stamp(*art.icon(name), 2, 2)
        small[name] = canvas.rgb.reshape(10, 2, 10, 2, 3).mean(axis=(1, 3))
    closest = min((small_distance(small[a], small[b]), a, b) for a, b in combinations(small, 2))
    assert len(small) >= 48 and closest[0] > 1.1, closest


def test_poses_differ_at_the_size_the_model_sees() -> None:
    for track, thing in ((0, "barrel"), (1, "wrench"), (2, "egg"), (3, "key")):
        small = {}
        for verb in art.POSES:
            drawn = art.sprite(track, COLOURS[track], verb, thing, step=0)
            whole = np.where(drawn.mask[..., None], drawn.rgb, 200)
            small[verb] = whole.reshape(23, 2, 32, 2, 3).mean(axis=(1, 3))
        closest = min((small_distance(small[a], small[b]), a, b) for a, b in combinations(small, 2))
        assert closest[0] > 2, (thing, closest)


@EVERY_DOMAIN
def test_plates_differ_at_the_size_the_model_sees(domain) -> None:
    states = np.zeros((NUM_PLACES, 7), dtype=int)
    states[:, PLACE] = states[:, SIGN] = np.arange(NUM_PLACES)
    small = render.to_model_size(render.render_frames(domain, states, np.zeros(NUM_PLACES)))
    for band in (small[:, : render.SCENE_TOP // 2], small[:, render.PLATE_TOP // 2 :]):
        assert min(small_distance(a, b) for a, b in combinations(band, 2)) > 1.4


def test_colours_stay_apart_for_colour_blind_eyes() -> None:
    # Dichromat simulation in linear RGB: Vienot, Brettel and Mollon 1999; distances in CIELAB
    # (CIE76), 2.3 being just noticeable.
    sight = {
        "full": np.eye(3),
        "protanope": np.array(
            [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]
        ),
        "deuteranope": np.array(
            [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
        ),
    }
    srgb = np.array([art.COLOUR_RGB[name] for name in COLOURS]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    for eyes, matrix in sight.items():
        xyz = (linear @ matrix.T).clip(0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack(
            [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
        )
        closest = min(
            (float(np.linalg.norm(lab[a] - lab[b])), COLOURS[a], COLOURS[b])
            for a, b in combinations(range(len(COLOURS)), 2)
        )
        assert closest[0] > 20, (eyes, closest)


@EVERY_DOMAIN
def test_preparations_show_at_the_size_the_model_sees(domain) -> None:
    """Whoever stands before them, a preparation differs from nothing and from anything else that
    lasts by 16 whole pixels or more.
    """
    for seed in range(4):
        rows = np.tile(random_states(seed, 1), (1 + len(SHOWN), 1))
        rows[:, EFFECT] = np.arange(1 + len(SHOWN))
        small = render.to_model_size(
            render.render_frames(domain, rows, np.full(len(rows), seed / 4))
        )
        for name in PREPARATIONS:
            number = 1 + SHOWN.index(name)
            near = min(
                (small_distance(small[number], small[other]), other)
                for other in range(len(rows))
                if other != number
            )
            assert near[0] > 4, (name, near)


def test_preparations_leave_the_light_and_the_people_alone() -> None:
    row = np.array([[3, 50, 0, 1, 2, 3, 4]])
    plain, *prepared = (
        render.render_frames(DOMAINS["farm"], row + [0, 0, n, 0, 0, 0, 0], np.zeros(1))
        for n in (0, 7, 8, 9, 10)
    )
    people = np.zeros((render.SIZE * render.SIZE), dtype=bool)
    for track, role in enumerate(DOMAINS["farm"].cast):
        where, _ = render._figure(
            track, role.colour, role.verbs[0], role.objects[track], 2 * track % art.STEPS
        )
        people[where] = True
    for name, frame in zip(PREPARATIONS, prepared, strict=True):
        changed = (frame != plain).any(axis=-1).reshape(-1)
        assert not changed[people].any(), f"{name} hides somebody"
        assert 0.03 < changed.mean() < 0.2, f"{name} covers {changed.mean():.0%} of the picture"


@EVERY_DOMAIN
def test_every_field_is_readable_after_h264(domain) -> None:
    """A nearest-template reader, told only the time, recovers all seven fields from 64 x 64
    pixels.
    """
    states = random_states(11, 33)
    frames = h264(list(render.render_video(domain, states, fps=2.0)), fps=2)[::2]
    every_place = np.zeros((NUM_PLACES, 7), dtype=int)
    every_place[:, PLACE] = every_place[:, SIGN] = np.arange(NUM_PLACES)
    names = render.to_model_size(render.render_frames(domain, every_place, np.zeros(NUM_PLACES)))
    top, bottom, gutter = render.SCENE_TOP // 2, render.PLATE_TOP // 2, [0, 1, 30, 31]
    for second, (seen, truth) in enumerate(zip(render.to_model_size(frames), states, strict=True)):
        read = np.zeros(7, dtype=int)
        read[PLACE] = nearest(seen[bottom:], names[:, bottom:])
        read[SIGN] = nearest(seen[:top], names[:, :top])

        def drawn(rows: np.ndarray, second: int = second) -> np.ndarray:
            return render.to_model_size(
                render.render_frames(domain, rows, np.full(len(rows), float(second)))
            )

        rows = np.tile(read, (1 + len(SHOWN), 1))
        rows[:, EFFECT] = np.arange(1 + len(SHOWN))
        read[EFFECT] = nearest(seen[top:bottom, gutter], drawn(rows)[:, top:bottom][:, :, gutter])
        rows = np.tile(read, (17, 1))
        rows[:, TRACK0:] = np.arange(17)[:, None]
        templates = drawn(rows)
        for track, (y, x) in enumerate(render.CELLS):
            cell = np.s_[y // 2 : (y + art.CELL_H) // 2, x // 2 : (x + art.CELL_W) // 2]
            read[TRACK0 + track] = nearest(
                seen[cell], np.stack([picture[cell] for picture in templates])
            )
        assert read.tolist() == truth.tolist(), f"second {second}"


# --- domains


def test_art_covers_the_global_vocabulary() -> None:
    assert set(art.COLOUR_RGB) == set(COLOURS) and set(art.POSES) == {"idle", *VERBS}
    assert tuple(render._LASTING) == SHOWN


def test_35_domains_of_six_families() -> None:
    assert len(DOMAINS) == 35 and FAMILIES == [
        "home",
        "leisure",
        "nature",
        "town",
        "travel",
        "work",
    ]


@EVERY_DOMAIN
def test_domain_can_be_drawn_and_is_balanced(domain) -> None:
    verbs = [verb for role in domain.cast for verb in role.verbs]
    assert {verb: verbs.count(verb) for verb in VERBS} == dict.fromkeys(VERBS, 2)
    assert {name for role in domain.cast for name in role.objects} <= set(art.ICONS)
    assert len({role.colour for role in domain.cast}) == 4 and {
        role.colour for role in domain.cast
    } <= set(COLOURS)
    assert all(3 <= len(noun) <= 4 for noun in domain.places) and all(
        len(role.role) <= 8 for role in domain.cast
    )
    assert len({rule.cause for rule in domain.rules} | {plan.purpose for plan in domain.plans}) == 8


def test_no_word_means_two_things() -> None:
    nouns = [
        noun
        for family in {domain.family: domain.places for domain in DOMAINS.values()}.values()
        for noun in family
    ]
    roles = [role.role for domain in DOMAINS.values() for role in domain.cast]
    words = [*nouns, *roles, *art.ICONS, *COLOURS, *VERBS, *SHOWN, *DOMAINS]
    assert sorted({word for word in words if words.count(word) > 1}) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_domains_of_a_family_have_a_light_of_their_own(family: str) -> None:
    mine = [domain for domain in DOMAINS.values() if domain.family == family]
    for one, other in combinations(mine, 2):
        skies, grounds = (
            np.array([art.rgb(one_), art.rgb(other_)])
            for one_, other_ in ((one.sky, other.sky), (one.ground, other.ground))
        )
        assert (
            np.abs(np.diff(skies, axis=0)).sum() > 30
            and np.abs(np.diff(grounds, axis=0)).sum() > 30
        ), (one.name, other.name)


@EVERY_DOMAIN
def test_every_activity_has_its_own_picture(domain) -> None:
    rows = np.zeros((17, 7), dtype=int)
    rows[:, TRACK0:] = np.arange(17)[:, None]
    small = render.to_model_size(render.render_frames(domain, rows, np.zeros(17)))
    for y, x in render.CELLS:
        cells = small[:, y // 2 : (y + art.CELL_H) // 2, x // 2 : (x + art.CELL_W) // 2]
        assert min(small_distance(a, b) for a, b in combinations(cells, 2)) > 1


# --- bad input


@pytest.mark.parametrize(
    ("states", "times_s"),
    [
        (np.zeros((2, 6), dtype=int), np.zeros(2)),
        (np.zeros((2, 7), dtype=int), np.zeros(3)),
        (np.zeros((1, 7)), np.zeros(1)),
        (np.array([[144, 0, 0, 0, 0, 0, 0]]), np.zeros(1)),
        (np.array([[0, 0, 0, 0, 0, 0, -1]]), np.zeros(1)),
        (np.array([[0, 0, 15, 0, 0, 0, 0]]), np.zeros(1)),
    ],
)
def test_bad_states_are_refused(states: np.ndarray, times_s: np.ndarray) -> None:
    with pytest.raises(UserError, match="states"):
        render.render_frames(DOMAINS["house"], states, times_s)


def test_bad_words_are_named() -> None:
    with pytest.raises(UserError, match="'unicorn'"):
        art.icon("unicorn")
    with pytest.raises(UserError, match="'7'"):
        art.write("pier 7")
    with pytest.raises(UserError, match="red"):
        art.rgb("red")
    with pytest.raises(UserError, match="fps"):
        next(render.render_video(DOMAINS["house"], random_states(0, 2), fps=0))
    with pytest.raises(UserError, match="finite"):
        render.render_frames(DOMAINS["house"], random_states(0, 1), np.array([np.nan]))


def test_no_frames_is_an_empty_array() -> None:
    assert render.render_frames(
        DOMAINS["house"], np.zeros((0, 7), dtype=np.int16), np.zeros(0)
    ).shape == (0, 128, 128, 3)
