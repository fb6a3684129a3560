"""Several faces in one film: one track per face, whose number stays with the person. A pure step on one frame."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import FaceConfig
from stag_jax.face import appearance, face_checks, landmarks, tracking
from stag_jax.face.tracking import SeenFace, TrackingState

NEW = 1000.0  # ms between searches for faces that are not yet tracked
SEEK = 200.0  # ms between searches while a known face is missing, or none is known
KEEP = 5000.0  # ms for which a lost face keeps its number
LEARN = 1000.0  # ms between stored views of a face, apart from the first
VIEWS = 3  # stored per face
GONE = 8  # most faces remembered that are not tracked now
LEAST = 32  # pixels; a picture with a shorter side is taken to show no face

# Limits for the mean correlation of two views. Views of one rendered person are at 0.95 and above, rarely below 0.88 if
# one laughs; those of two persons are at 0.65, one pair in twenty above 0.81, none above 0.86.
ABRUPT = 0.87  # a view less similar than this to an accepted view one frame before is a break
SURE = 0.85  # the same face, at any position
DOUBT = 0.75  # the same face, if it is where it was and matches no other
TIE = 0.02  # of two tracks on one face the younger one is refused where they differ by less
CLEAR = 2.0  # outer eye distances to the next face, beyond which a view shows nothing of that face
APART = 1.0  # outer eye distances within which the detector's box and a tracked face are the same

_NOBODY = (face_checks.NOTHING, tracking.ANOTHER)  # the face is not where it was
_AWAY = (*_NOBODY, face_checks.LOST)  # ... or possibly not

Views = tuple[Float[np.ndarray, "region pixel"], ...]


class Tracked(NamedTuple):
    """One known face."""

    number: int
    state: TrackingState | None  # None: lost, may be recognised again
    seen_ms: float  # when it was last tracked, or started
    views: Views = ()  # stored views: the first and the latest ones; empty before the first
    learnt_ms: float = 0.0  # when the latest view was stored
    eyes: float = tracking.EASY  # outer eye distance when it was last tracked, pixels
    torn: bool = True  # the next tracked frame does not continue an earlier one


class Crowd(NamedTuple):
    """The state of all tracks between two frames. `Crowd()` is the initial state."""

    tracks: tuple[Tracked, ...] = ()
    begun: int = 0  # numbers given so far; no number is used twice
    searched_ms: float | None = None
    turn: int = 0  # searches so far; they go through the sizes in turn
    size: tuple[int, int] | None = None  # height and width of the previous frame


class Followed(NamedTuple):
    """One face in one frame."""

    track: int  # the same number for the same face
    seen: SeenFace
    # The face is tracked, but its motion since an earlier frame is not reliable: it is new, was refused until now,
    # jumped by more than `cfg.redetect_jump`, abruptly looks different, or was recognised at another place.
    broken: bool


class _Step(NamedTuple):
    """One track in this frame: before and after its step, and the result."""

    was: Tracked
    state: TrackingState
    seen: SeenFace


def step(
    state: Crowd, frame: UInt8[np.ndarray, "y x 3"], time_ms: float, cfg: FaceConfig, most: int
) -> tuple[Crowd, tuple[Followed, ...]]:
    """Process the next RGB frame of a film at its time; follow at most `most` faces. Pure.

    With `most` = 1 the face is followed as by `tracking.track`, with exactly one result per frame. Otherwise each face
    is followed by a `tracking.step` that knows the places of the others and looks only where the face was; the whole
    frame is searched for all faces together, at fixed intervals of time. A face has a result from the frame in which it
    is found until it has been lost for long, refused frames included.

    Each confirmed face is compared with the stored views. So a number belongs to a person and not to a place: when two
    persons change places, their numbers do too, and when another person takes a place, the number changes. Of two
    tracks on one face, the one that looks less like the face is refused.

    Raises:
      UserError: the predictor file is missing or unusable. The content of a frame never raises.
    """
    size = frame.shape[:2]
    alone = next((t.state for t in state.tracks if t.state), TrackingState()) if most == 1 else None
    tracks, begun = _remembered(state.tracks, time_ms, most), state.begun
    if state.size not in (None, size):
        tracks = tuple(track._replace(state=None, torn=True) for track in tracks)
        state, alone = state._replace(searched_ms=None), TrackingState()
    state = state._replace(size=size)
    if most == 1 and not any(track.state for track in tracks):
        tracks, begun = (*tracks, Tracked(begun, alone, time_ms)), begun + 1
    live, lost = [t for t in tracks if t.state], [t for t in tracks if not t.state]

    if min(size) < LEAST:
        steps = [_Step(track, *tracking.refuse(track.state, face_checks.NOTHING, track.state.place)) for track in live]
    elif most == 1:
        steps = [_Step(track, *tracking.step(track.state, frame, cfg)) for track in live]
    else:
        steps = _parted(_follow(live, frame, cfg), frame, cfg)
        refused, room = [entry for entry in steps if entry.seen.refused], len(live) < most
        urgent = not live or (room and lost) or any(entry.seen.refused in _AWAY for entry in refused)
        if (refused or room) and _due(state.searched_ms, time_ms, SEEK if urgent else NEW):
            sizes = _sizes(state.turn, [entry.was for entry in refused] + lost, bool(live), size)
            arrivals = _arrivals(steps, frame, cfg, sizes, most)
            # Negative until it is known that this is a new person and that there is room.
            steps += [_Step(Tracked(-1 - k, TrackingState(), time_ms), *entry) for k, entry in enumerate(arrivals)]
            state = state._replace(searched_ms=time_ms, turn=state.turn + 1)

    steps, moved, begun = _recognised(steps, lost, begun, time_ms, most)
    results, new_tracks = [], []
    for entry in steps:
        track, result = _result(
            entry, time_ms, entry.was.number in moved, [o.state for o in steps if o is not entry], cfg
        )
        new_tracks.append(track)
        results.append(result)
    taken = {track.number for track in new_tracks}
    lost_tracks = [t._replace(state=None, torn=True) for t in (*live, *lost) if t.number not in taken and t.views]
    results.sort(key=lambda result: result.track)
    return state._replace(tracks=(*new_tracks, *lost_tracks), begun=begun), tuple(results)


def _remembered(tracks: tuple[Tracked, ...], now: float, most: int) -> tuple[Tracked, ...]:
    """Drop tracks that have been lost for too long, and lost ones above the limit `GONE`."""
    if most > 1:
        tracks = tuple(t._replace(state=None) if t.state and t.state.place is None else t for t in tracks)
    kept = [t for t in tracks if abs(now - t.seen_ms) <= KEEP or (most == 1 and t.state and not t.views)]
    gone = sorted((t for t in kept if not t.state), key=lambda t: -t.seen_ms)[:GONE]
    return (*(t for t in kept if t.state), *gone)


def _follow(live: list[Tracked], frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig) -> list[_Step]:
    """Step each track at its old place; first those seen in the previous frame, so no lost one takes their face."""
    places = {track.number: track.state.place for track in live if not track.state.gone}
    steps = []
    for track in sorted(live, key=lambda track: (track.state.gone > 0, track.number)):
        others = tuple(place for number, place in places.items() if number != track.number)
        state, seen = tracking.step(track.state, frame, cfg, others)
        if not seen.refused:
            places[track.number] = state.place
        steps.append(_Step(track, state, seen))
    return steps


def _parted(steps: list[_Step], frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig) -> list[_Step]:
    """Refuse one of two tracks on one face: the one that looks less like it, or the younger one."""
    steps = sorted(steps, key=lambda one: one.was.number)
    for i in range(len(steps)):
        for j in range(i + 1, len(steps)):
            first, second = steps[i], steps[j]
            if first.seen.refused or second.seen.refused or not tracking.on_top(first.state.place, second.state.place):
                continue
            view = face_checks.look(frame, first.state.place, cfg.predictor).view
            loser = i if _like(second.was.views, view) > _like(first.was.views, view) + TIE else j
            was = steps[loser].was
            steps[loser] = _Step(was, *tracking.refuse(was.state, tracking.ANOTHER, was.state.place))
    return steps


def _due(last: float | None, now: float, every: float) -> bool:
    return last is None or not 0 <= now - last < every


def _sizes(turn: int, missing: list[Tracked], any_live: bool, size: tuple[int, int]) -> tuple[float, ...]:
    """Return the scales to search: at first all, later those for the missing faces, or one in turn.

    While a face is tracked no enlarged copy is searched: that takes longest, and finds faces too small to be of use.
    """
    all_scales = landmarks.scales(max(size))
    sizes = {min(max(tracking.EASY / track.eyes, all_scales[0]), all_scales[-1]) for track in missing}
    if not turn:
        sizes.update(all_scales)
    elif not sizes:
        candidates = [scale for scale in all_scales if scale <= 1 or not any_live]
        sizes.add(candidates[turn % len(candidates)])
    distinct = []
    for scale in sorted(sizes):
        if not distinct or scale > 1.2 * distinct[-1]:
            distinct.append(scale)
    return tuple(distinct)


def _arrivals(
    steps: list[_Step], frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig, sizes: tuple[float, ...], most: int
) -> list[tuple[TrackingState, SeenFace]]:
    """Find the faces of the frame that have no track."""
    # A track refused because of what its face shows is still on that face.
    occupied = [one.state.place for one in steps if one.seen.refused not in _NOBODY]
    arrivals = []
    for faces in landmarks.search(frame, sizes, cfg.min_score):
        for place in (face_checks.start(face) for face in faces[: most + tracking.MOST]):
            if any(tracking.away(other, place) < APART for other in occupied):
                continue
            state, seen = tracking.step(TrackingState(place=place), frame, cfg, tuple(occupied))
            if seen.refused not in _NOBODY:
                occupied.append(state.place)
                arrivals.append((state, seen))
    return arrivals


def _recognised(
    steps: list[_Step], gone: list[Tracked], begun: int, now: float, most: int
) -> tuple[list[_Step], set[int], int]:
    """Assign to each confirmed face the number of the person that it looks like.

    Returns the steps with their final numbers, the numbers whose motion is broken, and the count of numbers.
    """
    doubtful, firm, rest = [], [], []
    known = {t.number: t for t in (*(record.was for record in steps), *gone) if t.views}
    for record in steps:
        view = _confirmed(record)
        if view is None:
            (rest if record.seen.refused else firm).append(record)
            continue
        others = [_like(t.views, view) for t in known.values() if t.number != record.was.number]
        best_other = max(others, default=-1.0)
        before = record.was.state.face
        same = before is not None and record.was.views and _mean(before.view, view) >= ABRUPT
        own = _like(record.was.views, view)
        (firm if same and not (best_other >= SURE and best_other > own) else doubtful).append(record)

    free = set(known) - {record.was.number for record in firm}
    pairs = [
        (_like(known[number].views, _confirmed(record)), -number, k)
        for k, record in enumerate(doubtful)
        for number in free
    ]
    assigned: dict[int, int] = {}
    for like, minus, k in sorted(pairs, reverse=True):
        stays = doubtful[k].was.number == -minus and _stays(doubtful[k])
        if k not in assigned and -minus in free and like >= (DOUBT if stays else SURE):
            assigned[k] = -minus
            free.discard(-minus)
    named = list(firm)
    for k, record in enumerate(doubtful):
        if k in assigned:
            named.append(record._replace(was=known[assigned[k]]))
        elif not record.was.views:
            named.append(record)
        elif most > 1 and record.was.state and not record.was.state.gone:
            # Half a face behind another is not a new person: the track stays.
            rest.append(_Step(record.was, *tracking.refuse(record.was.state, tracking.UNSTEADY, record.state.place)))
        else:
            named.append(record._replace(was=Tracked(begun, TrackingState(), now)))
            begun += 1
    moved = {record.was.number for record in named[len(firm) :]}
    taken = {record.was.number for record in named}
    rest = [record for record in rest if record.was.number not in taken and (most == 1 or _worth(record, now))]
    # Known faces keep their tracks; the others get the remaining places in the order in which they were found.
    named += rest
    friends = [record for record in named if record.was.views][:most]
    strangers = sorted((record for record in named if not record.was.views), key=lambda one: one.was.number < 0)
    for record in strangers[: max(most - len(friends), 0)]:
        if record.was.number < 0:
            record, begun = record._replace(was=record.was._replace(number=begun)), begun + 1
        friends.append(record)
    return friends, moved, begun


def _worth(one: _Step, now: float) -> bool:
    """Return whether a refused face should still be looked for at its old place."""
    if one.state.place is None:
        return False
    return bool(one.was.views) or one.seen.refused not in _NOBODY


def _result(
    one: _Step, now: float, moved: bool, others: list[TrackingState], cfg: FaceConfig
) -> tuple[Tracked, Followed]:
    """Return the new state and the result of one track."""
    track = one.was._replace(state=one.state)
    if one.seen.refused:
        return track._replace(torn=True), Followed(track.number, one.seen, broken=False)
    broken = track.torn or moved or one.seen.jump > cfg.redetect_jump
    track = track._replace(seen_ms=now, torn=False, eyes=face_checks.eyes(one.state.place))
    view = _confirmed(one)
    if view is not None:
        clear = all(o.place is None or tracking.away(one.state.place, o.place) > CLEAR for o in others)
        if not track.views:
            track = track._replace(views=(view,), learnt_ms=now)
        elif clear and abs(now - track.learnt_ms) >= LEARN:
            track = track._replace(views=(track.views[0], *track.views[1:][2 - VIEWS :], view), learnt_ms=now)
    return track, Followed(track.number, one.seen, broken)


def _confirmed(one: _Step) -> Float[np.ndarray, "region pixel"] | None:
    """Return the view of a face confirmed in this frame; None if it was only followed, or refused."""
    if one.seen.refused:
        return None
    before = one.was.state and one.was.state.face
    return None if before and before.view is one.state.face.view else one.state.face.view


def _stays(one: _Step) -> bool:
    """Return whether a track is near its old place."""
    place = one.was.state.place
    return place is not None and tracking.away(place, one.state.place) <= tracking.NEAR


def _mean(one: Float[np.ndarray, "region pixel"], other: Float[np.ndarray, "region pixel"]) -> float:
    return float(appearance.likeness(one, other).mean())


def _like(views: Views, view: Float[np.ndarray, "region pixel"]) -> float:
    """Return the similarity of a view to the most similar stored one; -1 if there is none."""
    return max((_mean(one, view) for one in views), default=-1.0)
