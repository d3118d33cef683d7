"""Meanings of the names of files and folders: which are images, which belong to the system, are masks, or are splits.

Everybody's folders are read, so nothing here is guessed in silence: what is plain is recognised, what is not is refused, and
what is left out is counted.
"""

import functools
import importlib.util
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from vistok.system.files import readable, shown

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
HAS_AVIF = importlib.util.find_spec("PIL.AvifImagePlugin") is not None  # Pillow's own since 11.3
HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None  # an optional package that teaches them to Pillow
TGA_SUFFIXES = frozenset({".tga", ".icb", ".vda", ".vst"})


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Suffixes of photographs and pictures, as far as Pillow reads them: see `transforms.FORMATS`.
SUFFIXES = (
    _listed(".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .jp2 .j2k .j2c .jpc .jpf .jpx")
    | _listed(".ppm .pgm .pbm .pnm .pcx .psd .qoi .ras .sgi .rgb .rgba .bw")
    | TGA_SUFFIXES
    | frozenset({".avif"} if HAS_AVIF else ())
    | (HEIF_SUFFIXES if HAS_HEIF else frozenset())
)
# Pictures all the same, but not to be read: formats that Pillow lacks, that have no known range, or that are drawn by programs.
UNREAD = (
    _listed(".avif .avifs .jxl .jxr .svg .eps .exr .hdr .pfm .fits .dcm .xcf .dds .ico")
    | _listed(".raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw .pcd")
    | HEIF_SUFFIXES
) - SUFFIXES

_SUFFIXES = frozenset(suffix.encode() for suffix in SUFFIXES)
# Behind the suffix what a browser, wget or a copy has left: "a.jpg?w=640", "a.jpg_large", "a.jpg.1".
_SPOILT = re.compile(rb".+(\.(?:jpe?g|png|webp|gif|bmp|tiff?))(?:[^a-z0-9.].*|\.[0-9]+)", re.IGNORECASE | re.DOTALL)
_UNREAD = frozenset(suffix.encode() for suffix in UNREAD)
# Thumbnails, deleted files and older versions: of NAS devices, Windows, file systems.
_SYSTEM = {b"system volume information", b"lost+found"} | {
    name.encode()
    for name in _listed(
        "@eadir @recycle @recently-snapshot @sharebin @tmp #recycle #snapshot ~snapshot $recycle.bin recycler recycled"
    )
}
_MASK_WORDS = "masks?|seg|segm|segmap|segmentation|labels?|labelids|instanceids|trimap|matte|gt|groundtruth|depth"
_PICTURE_WORDS = "image|images|img|rgb|sat|color|colour|photo|input|orig|original"
_MASK = re.compile(  # for an image "0": "0_mask.png", "0_mask_1.png" where it has several, "mask_0.png"
    rf"(?:(.+)[._-](?:{_MASK_WORDS})(?:[._-]?\d+)?|(?:{_MASK_WORDS})[._-](.+))\.[^./]+".encode(),
    re.IGNORECASE | re.DOTALL,
)
_PICTURE = re.compile(
    rf"(.+)[._-](?:{_PICTURE_WORDS})|(?:{_PICTURE_WORDS})[._-](.+)".encode(), re.IGNORECASE | re.DOTALL
)
_IMAGE_FOLDERS = _listed("image images img imgs jpegimages photos pictures rgb input inputs")
_MASK_FOLDERS = _listed(
    "mask masks label labels annotation annotations segmentation segmentations seg depth trimap trimaps gt groundtruth"
) | _listed("segmentationclass segmentationobject segmentationclassaug target targets edges normals")
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_BESIDE_SPLIT = _listed("set split data dataset image images img imgs photos ilsvrc")
_SPLIT_AND_BESIDE = re.compile(  # written as one word: "traindata", "testimages", "imgval"
    "(?:({0})({1})|({1})({0}))".format("|".join(_SPLIT_WORDS), "|".join(_BESIDE_SPLIT))
)
_BESIDE_PAIR = frozenset(
    ["png", "jpg", "jpeg", "tif", "gif", "bmp", "anno", "ground", "truth", "color", "colour", "gray", "binary"]
)


# Reasons that `LeftOut` counts, each after a number.
IN_SYSTEM_FOLDERS = "hidden, or in folders of the system"
NO_FILES = "that are no files, but pipes or devices"
MASKS = "that are masks, labels or depths of the images beside them"


def suffix_of(name: bytes) -> bytes:
    """Return a file's suffix in lower case, with its dot; empty where it has none."""
    place = name.rfind(b".")
    return name[place:].lower() if place > 0 else b""


def is_image_name(name: bytes) -> bool:
    """Return whether a file name, without folders, is that of an image; those of hidden files are not."""
    return name[name.rfind(b".") :].lower() in _SUFFIXES and not name.startswith(b".")


def is_system_folder(name: bytes) -> bool:
    """Return whether a folder of this name is hidden or belongs to the system, so that it holds no images of the dataset."""
    return name.startswith((b".", b"__MACOSX")) or name.lower() in _SYSTEM


def is_system_path(path: bytes) -> bool:
    """Return whether a path leads through such a folder, or to a hidden file."""
    folders, _, name = path.rpartition(b"/")
    return name.startswith(b".") or _through_system(folders)


@functools.lru_cache(maxsize=1024)
def _through_system(folders: bytes) -> bool:
    return any(is_system_folder(each) for each in folders.split(b"/") if each not in (b"", b".", b".."))


class LeftOut:
    """Files that look like images of a dataset and are left out, counted by the reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: bytes, count: int = 1) -> None:
        """Count some files that are left out for a reason, which ends a sentence that begins with their number."""
        self._counts[reason] += count
        self._examples.setdefault(reason, readable(example.decode("utf-8", "surrogateescape")))

    def add_file(self, name: bytes, path: bytes) -> None:
        """Count a file that is no image by its name, where it is a picture all the same; others are not counted."""
        suffix = suffix_of(name)
        if suffix in _UNREAD:
            help_with = " (pip install pillow-heif)" if suffix.decode() in HEIF_SUFFIXES else ""
            self.add(f"{suffix.decode()}, which is not read{help_with}", path)
        elif name.startswith(b"."):
            if suffix in _SUFFIXES:
                self.add(IN_SYSTEM_FOLDERS, path)
        elif match := _SPOILT.fullmatch(name):
            self.add(f"whose names go on behind {match[1].decode().lower()}", path)

    def update(self, other: "LeftOut") -> None:
        """Take over the counts of another part of the dataset."""
        self._counts.update(other._counts)
        self._examples = other._examples | self._examples

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        return "; ".join(f"{count:,} {reason} ({self._examples[reason]})" for reason, count in self._counts.items())

    def warn(self, place: object) -> None:
        """Say what was left out of a place, once."""
        if self:
            warnings.warn(f"Files in {readable(str(place))} are left out: {self}.", stacklevel=2)


def masks_among(names: Collection[bytes]) -> set[bytes]:
    """Return the files of one folder that are masks: `0_mask.png` where there is `0.jpg`, or `0_rgb.jpg`."""
    found = {name: match[1] or match[2] for name in names if (match := _MASK.fullmatch(name))}
    stems = {name[: name.rfind(b".")] for name in names if name not in found} if found else set()
    stems |= {match[1] or match[2] for stem in stems if (match := _PICTURE.fullmatch(stem))}
    return {name for name, stem in found.items() if stem in stems}


def masks_in(paths: Iterable[bytes]) -> set[bytes]:
    """Return the paths of masks, each beside its image, among those of several folders."""
    by_folder: dict[bytes, list[bytes]] = defaultdict(list)
    for path in paths:
        by_folder[path[: len(path) - len(_last(path))]].append(_last(path))
    return {folder + name for folder, names in by_folder.items() for name in masks_among(names)}


def check_no_twins(names: Sequence[bytes], place: object) -> None:
    """Refuse a folder that holds every picture twice, as `0.jpg` and `0.png`: these are masks, or copies of training images.

    Args:
        names: sorted paths of all images of one folder.
        place: what they are relative to.
    """
    if len(names) < 4 or len(names) % 2:
        return
    suffixes = set()
    for first, second in zip(names[::2], names[1::2], strict=True):
        (stem, _, suffix), (same, _, other) = first.rpartition(b"."), second.rpartition(b".")
        suffixes.add((suffix, other))
        if same != stem or len(suffixes) > 1:
            return
    first, second = (readable(name) for name in names[:2])
    raise ValueError(
        f"{readable(str(place))} holds {first} and {second}, and so for every image: pictures and their masks, or each picture "
        "twice, so that test images would be trained on. Move those of one suffix away."
    )


def first_of_samples(names: list[bytes], shard: object) -> tuple[list[int], LeftOut]:
    """Return which members of a shard are the image of their sample, in order, and what is left out.

    To WebDataset a member is a key and what it is, parted by the first dot of its last name: `0.jpg` and `0.seg.png` are one
    sample; `cat.0.jpg` and `cat.1.jpg` are two. Of several images of a sample that whose suffix has no second dot is the image,
    or else what is no mask. `0_mask.png` is left out as in a folder.

    Raises:
        ValueError: two members have as good a claim.
    """
    left_out = LeftOut()
    samples: dict[bytes, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        samples[_key(name)].append(number)
    frequent = Counter(names[n][len(key) :] for key, members in samples.items() for n in members)
    dropped: set[int] = set()
    for key, members in samples.items():
        plain = [n for n in members if b"." not in names[n][len(key) + 1 :]]
        images = plain or [n for n in members if not _MASK.fullmatch(_last(names[n]))] or members
        parts = {names[n][len(key) :] for n in images}
        # The same words in every sample, `0.left.png` and `0.right.png`; else they are names with dots.
        of_samples = all(frequent[part] > 1 for part in parts)
        if len(parts) > 1 and (plain or of_samples):
            first, second = (shown(readable(key + part)) for part in sorted(parts)[:2])
            raise ValueError(
                f"The shard {shard} holds {first} and {second} for one sample, and one of them may be a mask: pack one image a "
                "sample, or call the others like '0.seg.png' beside '0.png'."
            )
        dropped.update(set(members).difference(images))
    for number in sorted(dropped):
        left_out.add("that are further images of a sample", names[number])
    masks = masks_in([name for number, name in enumerate(names) if number not in dropped])
    for number, name in enumerate(names):
        if name in masks and number not in dropped:
            left_out.add(MASKS, name)
            dropped.add(number)
    return [number for number in range(len(names)) if number not in dropped], left_out


def _last(name: bytes) -> bytes:
    return name[name.rfind(b"/") + 1 :]


def _key(name: bytes) -> bytes:
    """Return the sample that a member belongs to; one with a number behind a dot is a sample of its own."""
    start = name.rfind(b"/") + 1
    stop = name.rfind(b".") if re.search(rb"\.\d+\.", name[start:]) else name.find(b".", start)
    return name[:stop]


# Splits.


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()) if word]


def _split_words(name: str) -> list[str]:
    words = [(word, _SPLIT_AND_BESIDE.fullmatch(word)) for word in _words(name)]
    return [part for word, match in words for part in (filter(None, match.groups()) if match else (word,))]


def _splits_and_rest(name: str) -> tuple[set[str], frozenset[str]]:
    """Return the splits that the words of a name tell, and its other words that say something."""
    words = _split_words(name)
    rest = frozenset(word for word in words if word not in _SPLIT_WORDS and word not in _BESIDE_SPLIT)
    return {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}, rest


def split_of_file(name: str) -> str | None:
    """Return the split that the words of a shard's name tell, or None.

    Raises:
        ValueError: they tell two.
    """
    splits, _ = _splits_and_rest(name)
    if len(splits) > 1:
        raise ValueError(
            f"The name of {readable(name)} tells the splits {' and '.join(sorted(splits))}, but must tell one, like "
            "train-0000.tar."
        )
    return next(iter(splits), None)


def split_of_folder(name: str) -> str | None:
    """Return the split whose folder this plainly is ("Train", "testing", "val2017", "train_images"), or None."""
    splits, rest = _splits_and_rest(name)
    return next(iter(splits)) if len(splits) == 1 and not rest else None


def tells_split(name: str) -> bool:
    """Return whether a word of a name is that of a split, plain or not: "my_test", "test_tube"."""
    return bool(_splits_and_rest(name)[0])


def check_one_pool(folders: Iterable[bytes], place: object) -> None:
    """Refuse to read as one pool what plainly is not one.

    Args:
        folders: paths of all folders with images, relative to `place`; empty: `place` itself.
        place: what an error calls the whole.

    Raises:
        ValueError: folders beside each other are different splits, or are images and masks.
    """
    children: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        parts = folder.decode("utf-8", "surrogateescape").strip("/").split("/")
        for depth, part in enumerate(parts):
            children["/".join(parts[:depth])].add(part)
    for parent, names in sorted(children.items()):
        inside = f"{place}/{parent}" if parent else str(place)
        by_rest: dict[frozenset[str], dict[str, str]] = defaultdict(dict)
        for name in sorted(names):
            splits, rest = _splits_and_rest(name)
            if len(splits) == 1:
                by_rest[rest].setdefault(next(iter(splits)), name)
        for rest, found in by_rest.items():
            if len(found) > 1:
                listed = " and ".join(f"{name}/" for name in found.values())
                advice = (
                    "call them train/ and test/"
                    if rest
                    else f"give {readable(inside)} as the data_root of dataset 'folder', or one of them alone"
                )
                raise ValueError(
                    f"{readable(inside)} holds {readable(listed)}, which look like splits, so that test images would be "
                    f"trained on: {advice}."
                )
        if pair := _pictures_and_masks(sorted(names)):
            images, masks = pair
            raise ValueError(
                f"{readable(inside)} holds images in {readable(images)}/ and in {readable(masks)}/, which look like pictures "
                f"and their masks; give {readable(inside)}/{readable(images)}, or move {readable(masks)}/ away."
            )


def _pictures_and_masks(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two of these folders that are pictures and their masks: "images" and "masks_png", "x-img" and "x-mask-anno"."""
    images: dict[str, set[str]] = {}
    masks: dict[str, set[str]] = {}
    for name in names:
        words = _words(name)
        said = {*words, "".join(words)}
        kinds = [kind for kind, known in ((images, _IMAGE_FOLDERS), (masks, _MASK_FOLDERS)) if said & known]
        if len(kinds) == 1:  # "mask images" may be a class
            known = _IMAGE_FOLDERS | _MASK_FOLDERS
            kinds[0][name] = set() if "".join(words) in known else set(words) - known - _BESIDE_PAIR
    pairs = ((i, m) for i, of_i in images.items() for m, of_m in masks.items() if of_i == of_m or of_i & of_m)
    return next(pairs, None)
