"""Makes images as tools leave them: images.py FOLDER KEY writes what `docker save` gives and OCI layouts, with gzip and with zstd.

The key is in a file that the layer above deletes, and in ENV. Prints the digests of that layer and of the settings in each.
"""
import gzip, hashlib, io, json, os, subprocess, sys, tarfile

FOLDER, KEY = sys.argv[1:]


def layer(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def sha(text):
    return hashlib.sha256(text).hexdigest()


def image(pack, kind, key):
    """The blobs of an image by their digests, and the digests of what is in it."""
    tars = [
        layer({"etc/os-release": "ID=none\n", "app/.env": f"A=1\nB=2\nTOKEN={key}\n"}),
        layer({"app/.wh..env": "", "app/main": "run\n"}),
    ]
    blobs = {sha(pack(tar)): pack(tar) for tar in tars}
    layers = list(blobs)
    settings = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin", f"TOKEN={key}"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha(tar) for tar in tars]},
    }).encode()
    blobs[sha(settings)] = settings
    about = lambda digest, media: {"mediaType": media, "digest": "sha256:" + digest, "size": len(blobs[digest])}
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": about(sha(settings), "application/vnd.oci.image.config.v1+json"),
        "layers": [about(digest, "application/vnd.oci.image.layer.v1.tar" + kind) for digest in layers],
    }).encode()
    blobs[sha(manifest)] = manifest
    index = {"schemaVersion": 2, "manifests": [about(sha(manifest), "application/vnd.oci.image.manifest.v1+json")]}
    files = {f"blobs/sha256/{digest}": blob for digest, blob in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = json.dumps(index).encode()
    files["manifest.json"] = json.dumps([{
        "Config": f"blobs/sha256/{sha(settings)}", "RepoTags": ["a:b"],
        "Layers": [f"blobs/sha256/{digest}" for digest in layers],
    }]).encode()
    return files, {"layer": layers[0], "settings": sha(settings)}


def zstd(text):
    return subprocess.run(["zstd", "-q", "-c"], input=text, stdout=subprocess.PIPE, check=True).stdout


PACKS = {"plain": (bytes, ""), "gzip": (lambda text: gzip.compress(text, mtime=0), "+gzip"), "zstd": (zstd, "+zstd")}
made = {}
for name, (pack, kind) in PACKS.items():
    for prefix, key in [("", KEY), ("clean-", "none")]:
        files, digests = image(pack, kind, key)
        made[prefix + name] = digests
        for path, text in files.items():
            path = os.path.join(FOLDER, prefix + name, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(text)
        with tarfile.open(os.path.join(FOLDER, prefix + name + ".tar"), "w") as archive:
            archive.add(os.path.join(FOLDER, prefix + name), arcname="")
print(json.dumps(made))
