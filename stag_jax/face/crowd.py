"""Several faces in one film: a track for each, whose number stays with the person. A pure step on one frame."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import FaceConfig
from stag_jax.face import appearance, face_checks, landmarks, tracking
from stag_jax.face.tracking import SeenFace, TrackingState

NEW = 1000.0  # ms between searches for faces that are not yet tracked
SEEK = 200.0  # ms between searches while a known face is missing, or none is known
KEEP = 5000.0  # ms for which a face that is gone keeps its number
LEARN = 1000.0  # ms between views of a face that are remembered besides its first
VIEWS = 3  # of each face that are remembered
GONE = 8  # faces that are remembered at most, besides those that are tracked
LEAST = 32  # pixels; a picture with a shorter side than this shows no face

# Mean correlation of two views. Views of one rendered person are at 0.95 and above, rarely below 0.88 if one laughs;
# those of two persons are at 0.65, one pair in twenty above 0.81, none above 0.86.
ABRUPT = 0.87  # a view that is less like the last one, which was fine a frame ago, is a break
SURE = 0.85  # the same face, wherever it is
DOUBT = 0.75  # the same face still, if it is where it was and like no other
TIE = 0.02  # of two that claim one face the younger yields where they differ by less
CLEAR = 2.0  # outer eye distances to the next face, beyond which a view has nothing of that face in it
APART = 1.0  # outer eye distances within which the detector's box and a tracked face are one

_NOBODY = (face_checks.NOTHING, tracking.ANOTHER)  # the face is not where it was
_AWAY = (*_NOBODY, face_checks.LOST)  # or may not be

Views = tuple[Float[np.ndarray, "region pixel"], ...]


class Tracked(NamedTuple):
    """One face that is known."""

    number: int
    state: TrackingState | None  # None: it is gone, and waits to be recognised
    seen_ms: float  # when it was last tracked, or begun
    views: Views = ()  # what it looked like: the first view and the latest; empty before the first
    learnt_ms: float = 0.0  # when the latest was taken
    eyes: float = tracking.EASY  # outer eye distance when it was last tracked, pixels
    torn: bool = True  # the next frame in which it is tracked does not continue an earlier one


class Crowd(NamedTuple):
    """All that is remembered from one frame to the next. `Crowd()` has seen nothing."""

    tracks: tuple[Tracked, ...] = ()
    begun: int = 0  # numbers given so far; none is given twice
    searched_ms: float | None = None
    turn: int = 0  # searches so far, which take the sizes in turn
    size: tuple[int, int] | None = None  # height and width of the frame before


class Followed(NamedTuple):
    """One face in one frame."""

    track: int  # the same number for the same face
    seen: SeenFace
    # The face is tracked, but motion since an earlier frame is not to be trusted: it is new, was refused until now,
    # jumped by more than `cfg.redetect_jump`, abruptly looks different, or was recognised elsewhere.
    broken: bool


class _Step(NamedTuple):
    """A track in this frame: as it was, as it is, and where it is not what it was."""

    was: Tracked
    state: TrackingState
    seen: SeenFace


def step(
    state: Crowd, frame: UInt8[np.ndarray, "y x 3"], time_ms: float, cfg: FaceConfig, most: int
) -> tuple[Crowd, tuple[Followed, ...]]:
    """Takes in the next frame of a film, RGB, at its time; follows at most `most` faces. Pure.

    With `most` = 1 the face is followed as by `tracking.track`, and there is exactly one result a frame. Else each face
    is followed by a `tracking.step` that knows of the others and looks only where the face was; the whole frame is
    searched for all of them together, by the clock. A face has a result from the frame in which it is found until it
    has been gone for long, refused frames included.

    Whenever a face is confirmed it is compared with the views that are remembered. So a number goes with the person and
    not with the place: where two change places, their numbers do too, and where another person takes a place, the
    number changes. Of two tracks on one face the one that looks less like it is refused.

    Raises:
      UserError: the predictor file is missing or unusable. Nothing is raised for what a frame shows.
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
    live, gone = [t for t in tracks if t.state], [t for t in tracks if not t.state]

    if min(size) < LEAST:
        steps = [_Step(track, *tracking.refuse(track.state, face_checks.NOTHING, track.state.place)) for track in live]
    elif most == 1:
        steps = [_Step(track, *tracking.step(track.state, frame, cfg)) for track in live]
    else:
        steps = _parted(_follow(live, frame, cfg), frame, cfg)
        refused, room = [one for one in steps if one.seen.refused], len(live) < most
        urgent = not live or (room and gone) or any(one.seen.refused in _AWAY for one in refused)
        if (refused or room) and _due(state.searched_ms, time_ms, SEEK if urgent else NEW):
            sizes = _sizes(state.turn, [one.was for one in refused] + gone, bool(live), size)
            fresh = _arrivals(steps, frame, cfg, sizes, most)
            # Below zero until it is clear that this is a new person, and that there is room.
            steps += [_Step(Tracked(-1 - k, TrackingState(), time_ms), *one) for k, one in enumerate(fresh)]
            state = state._replace(searched_ms=time_ms, turn=state.turn + 1)

    steps, moved, begun = _recognised(steps, gone, begun, time_ms, most)
    results, after = [], []
    for one in steps:
        track, result = _result(one, time_ms, one.was.number in moved, [o.state for o in steps if o is not one], cfg)
        after.append(track)
        results.append(result)
    taken = {track.number for track in after}
    left = [t._replace(state=None, torn=True) for t in (*live, *gone) if t.number not in taken and t.views]
    results.sort(key=lambda result: result.track)
    return state._replace(tracks=(*after, *left), begun=begun), tuple(results)


def _remembered(tracks: tuple[Tracked, ...], now: float, most: int) -> tuple[Tracked, ...]:
    """Without those that have been gone for too long, or are too many."""
    if most > 1:
        tracks = tuple(t._replace(state=None) if t.state and t.state.place is None else t for t in tracks)
    kept = [t for t in tracks if abs(now - t.seen_ms) <= KEEP or (most == 1 and t.state and not t.views)]
    gone = sorted((t for t in kept if not t.state), key=lambda t: -t.seen_ms)[:GONE]
    return (*(t for t in kept if t.state), *gone)


def _follow(live: list[Tracked], frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig) -> list[_Step]:
    """Each where it was; those first that were seen in the frame before, so that no lost one takes their face."""
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
    """Where two are on one face, refuses the one that it is less like, or the younger."""
    steps = sorted(steps, key=lambda one: one.was.number)
    for i in range(len(steps)):
        for j in range(i + 1, len(steps)):
            one, two = steps[i], steps[j]
            if one.seen.refused or two.seen.refused or not tracking.on_top(one.state.place, two.state.place):
                continue
            view = face_checks.look(frame, one.state.place, cfg.predictor).view
            loser = i if _like(two.was.views, view) > _like(one.was.views, view) + TIE else j
            was = steps[loser].was
            steps[loser] = _Step(was, *tracking.refuse(was.state, tracking.ANOTHER, was.state.place))
    return steps


def _due(last: float | None, now: float, every: float) -> bool:
    return last is None or not 0 <= now - last < every


def _sizes(turn: int, missing: list[Tracked], any_live: bool, size: tuple[int, int]) -> tuple[float, ...]:
    """Scales of the copies to search: the first time all, then those that suit the missing faces, or one in turn.

    While a face is tracked no copy is enlarged to find more: that takes longest, for faces too small to say much.
    """
    every = landmarks.scales(max(size))
    sizes = {min(max(tracking.EASY / track.eyes, every[0]), every[-1]) for track in missing}
    if not turn:
        sizes.update(every)
    elif not sizes:
        usual = [scale for scale in every if scale <= 1 or not any_live]
        sizes.add(usual[turn % len(usual)])
    apart = []
    for scale in sorted(sizes):
        if not apart or scale > 1.2 * apart[-1]:
            apart.append(scale)
    return tuple(apart)


def _arrivals(
    steps: list[_Step], frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig, sizes: tuple[float, ...], most: int
) -> list[tuple[TrackingState, SeenFace]]:
    """The faces of the frame that no track is on."""
    # A track that is refused for what its face shows is on that face all the same.
    held = [one.state.place for one in steps if one.seen.refused not in _NOBODY]
    fresh = []
    for found in landmarks.search(frame, sizes, cfg.min_score):
        for place in (face_checks.start(face) for face in found[: most + tracking.MOST]):
            if any(tracking.away(other, place) < APART for other in held):
                continue
            state, seen = tracking.step(TrackingState(place=place), frame, cfg, tuple(held))
            if seen.refused not in _NOBODY:
                held.append(state.place)
                fresh.append((state, seen))
    return fresh


def _recognised(
    steps: list[_Step], gone: list[Tracked], begun: int, now: float, most: int
) -> tuple[list[_Step], set[int], int]:
    """Gives each face that is confirmed the number of the person that it looks like.

    Returns the steps, now under their right numbers, those numbers that are a break, and the count of numbers.
    """
    doubtful, firm, rest = [], [], []
    known = {t.number: t for t in (*(one.was for one in steps), *gone) if t.views}
    for one in steps:
        view = _confirmed(one)
        if view is None:
            (rest if one.seen.refused else firm).append(one)
            continue
        others = [_like(t.views, view) for t in known.values() if t.number != one.was.number]
        theirs = max(others, default=-1.0)
        before = one.was.state.face
        same = before is not None and one.was.views and _mean(before.view, view) >= ABRUPT
        ours = _like(one.was.views, view)
        (firm if same and not (theirs >= SURE and theirs > ours) else doubtful).append(one)

    free = set(known) - {one.was.number for one in firm}
    pairs = [
        (_like(known[number].views, _confirmed(one)), -number, k) for k, one in enumerate(doubtful) for number in free
    ]
    given: dict[int, int] = {}
    for like, minus, k in sorted(pairs, reverse=True):
        stays = doubtful[k].was.number == -minus and _stays(doubtful[k])
        if k not in given and -minus in free and like >= (DOUBT if stays else SURE):
            given[k] = -minus
            free.discard(-minus)
    named = list(firm)
    for k, one in enumerate(doubtful):
        if k in given:
            named.append(one._replace(was=known[given[k]]))
        elif not one.was.views:
            named.append(one)
        elif most > 1 and one.was.state and not one.was.state.gone:
            # Half a face behind another is nobody new: it has to stay.
            rest.append(_Step(one.was, *tracking.refuse(one.was.state, tracking.UNSTEADY, one.state.place)))
        else:
            named.append(one._replace(was=Tracked(begun, TrackingState(), now)))
            begun += 1
    moved = {one.was.number for one in named[len(firm) :]}
    taken = {one.was.number for one in named}
    rest = [one for one in rest if one.was.number not in taken and (most == 1 or _worth(one, now))]
    # Known faces keep their tracks; of the others the first that were found have room.
    named += rest
    friends = [one for one in named if one.was.views][:most]
    strangers = sorted((one for one in named if not one.was.views), key=lambda one: one.was.number < 0)
    for one in strangers[: max(most - len(friends), 0)]:
        if one.was.number < 0:
            one, begun = one._replace(was=one.was._replace(number=begun)), begun + 1
        friends.append(one)
    return friends, moved, begun


def _worth(one: _Step, now: float) -> bool:
    """Whether a refused face is still worth looking at where it was."""
    if one.state.place is None:
        return False
    return bool(one.was.views) or one.seen.refused not in _NOBODY


def _result(
    one: _Step, now: float, moved: bool, others: list[TrackingState], cfg: FaceConfig
) -> tuple[Tracked, Followed]:
    """What is remembered and what is said of one track."""
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
    """The view of a face that was confirmed in this frame; None where it was only followed, or refused."""
    if one.seen.refused:
        return None
    before = one.was.state and one.was.state.face
    return None if before and before.view is one.state.face.view else one.state.face.view


def _stays(one: _Step) -> bool:
    """Whether a track is near where it was."""
    place = one.was.state.place
    return place is not None and tracking.away(place, one.state.place) <= tracking.NEAR


def _mean(one: Float[np.ndarray, "region pixel"], other: Float[np.ndarray, "region pixel"]) -> float:
    return float(appearance.likeness(one, other).mean())


def _like(views: Views, view: Float[np.ndarray, "region pixel"]) -> float:
    """How much a view is like the most similar of those that are remembered; -1 if none is."""
    return max((_mean(one, view) for one in views), default=-1.0)
