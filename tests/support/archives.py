"""Makes archives of random files, some with a key, in each other and in every form that there is a tool for.

archives.py SEED FOLDER writes them and prints where the keys are, as `botmesh scan` is to name them.
"""
import gzip, io, json, os, random, subprocess, sys, tarfile, tempfile, zipfile

SEED, FOLDER = sys.argv[1:]
dice = random.Random(SEED)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def key():
    return b"ghp_" + "".join(dice.choice(LETTERS) for _ in range(36)).encode()


def content():
    """A file, and the lines that have a key."""
    lines, found = [], []
    for number in range(1, dice.choice([1, 5, 40, 3000]) + 1):
        line = b"NAME=" + bytes(dice.choice(b"abc =/\x00\xff") for _ in range(dice.choice([0, 3, 70])))
        if dice.random() < 0.3 / (1 + number):
            line += b" " + key() + b" "
            found.append(number)
        lines.append(line)
    text = b"\n".join(lines)
    if dice.random() < 0.1:
        # So long that it is read in pieces.
        text = b"#" * dice.randrange(1 << 20, 3 << 20) + b"\n" + text
        found = [number + 1 for number in found]
    return text, [("", number) for number in found]


def name(used):
    while True:
        parts = [dice.choice(["a", "app", ".env", "two words", "ü-日本", "x" * 60, "y" * 120, "!"]) for _ in range(dice.randint(1, 4))]
        made = "/".join(parts) + str(len(used))
        if made not in used:
            used.add(made)
            return made


def entries(depth):
    used = set()
    return [(name(used), *something(depth - 1)) for _ in range(dice.randint(1, 5))]


def inside(made):
    return [("!" + name + rest, line) for name, _, found in made for rest, line in found]


def python_tar(depth):
    made, out = entries(depth), io.BytesIO()
    form = dice.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, text, _ in made:
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            if form == tarfile.PAX_FORMAT and dice.random() < 0.5:
                entry.pax_headers = {"comment": "c" * dice.randrange(2000)}
            archive.addfile(entry, io.BytesIO(text))
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
                other = tarfile.TarInfo("other")
                other.type, other.linkname = kind, "l" * dice.choice([1, 150])
                archive.addfile(other)
    return out.getvalue(), inside(made)


def gnu_tar(depth):
    made = [entry for entry in entries(depth) if len(entry[0].encode()) < 240]
    form = dice.choice(["gnu", "posix", "oldgnu", "ustar"])
    sparse = dice.choice([[], ["-S"], ["-S", "--sparse-version=" + dice.choice(["0.0", "0.1", "1.0"])]])
    if form == "ustar":
        made, sparse = [entry for entry in made if len(entry[0].encode()) < 100], []
    if form != "posix":
        sparse = sparse[:1]
    with tempfile.TemporaryDirectory() as folder:
        kept = []
        for number, (name, text, found) in enumerate(made):
            name = f"{number}/{name}"
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # A hole before an archive would hide what it is.
            holes = sparse and text.startswith((b"NAME=", b"#"))
            with open(path, "wb") as file:
                if holes:
                    file.seek(dice.randrange(1 << 22))
                    file.write(b"\0")
                file.write(text)
                if holes:
                    file.truncate(file.tell() + dice.randrange(1 << 20))
            kept.append((name, text, found))
        made = kept
        tar = ["tar", "-C", folder, f"--format={form}", *sparse, "-cf", "-", "--", *[name for name, _, _ in made]]
        done = subprocess.run(tar, stdout=subprocess.PIPE, check=True) if made else None
    return (done.stdout if done else bytes(1024)), inside(made)


class Pipe(io.RawIOBase):
    """What cannot go back, so that sizes are told after the data."""

    def __init__(self):
        self.text = bytearray()

    def writable(self):
        return True

    def write(self, some):
        self.text += bytes(some)
        return len(some)


def python_zip(depth):
    made, out = entries(depth), dice.choice([io.BytesIO, Pipe])()
    with zipfile.ZipFile(out, "w") as archive:
        archive.comment = b"c" * dice.randrange(100)
        for name, text, _ in made:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            with archive.open(entry, "w", force_zip64=dice.random() < 0.3) as into:
                into.write(text)
    return bytes(out.text if isinstance(out, Pipe) else out.getvalue()), inside(made)


def gzipped(depth):
    text, found = something(depth - 1)
    cut = dice.randrange(len(text) + 1)
    members = [text[:cut], text[cut:]] if dice.random() < 0.5 else [text]
    return b"".join(gzip.compress(member, dice.choice([1, 9])) for member in members) + bytes(dice.choice([0, 0, 512])), found


def zstd(depth):
    text, found = something(depth - 1)
    level = dice.choice(["-1", "-3", "-19"] if len(text) < 1 << 18 else ["-1", "-3"])
    frames = []
    cut = dice.randrange(len(text) + 1)
    for part in [text[:cut], text[cut:]] if dice.random() < 0.5 else [text]:
        if dice.random() < 0.3:
            frames.append(b"\x50\x2a\x4d\x18\x03\0\0\0abc")
        check = dice.choice(["--check", "--no-check"])
        frames.append(subprocess.run(["zstd", "-q", "-c", level, check], input=part, stdout=subprocess.PIPE, check=True).stdout)
    return b"".join(frames), found


def something(depth):
    if depth <= 0 or dice.random() < 0.3:
        return content()
    return dice.choice([python_tar, gnu_tar, python_zip, gzipped, zstd])(depth)


places = []
for number, make in enumerate([python_tar, gnu_tar, python_zip, gzipped, zstd] * 2):
    text, found = make(4)
    path = os.path.join(FOLDER, str(number))
    with open(path, "wb") as file:
        file.write(text)
    places += [f"{path}{rest}:{line}" for rest, line in found]
print(json.dumps(sorted(places)))
