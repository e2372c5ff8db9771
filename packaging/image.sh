#!/usr/bin/env bash
# Makes a container image of built binaries, from files of this machine alone:
# nothing is pulled, and no daemon or builder is needed.
#
#   packaging/image.sh --bin DIR --output PATH
#
# DIR holds orlop and orlop-fsck. PATH is made anew: a tar archive when its name
# ends in .tar, else a folder. Both are an OCI image layout that is a Docker
# archive too (manifest.json), so that docker, podman and skopeo take it.
#
# The image is one layer: the two programs, the shared libraries that ldd names,
# the loader, three files in /etc, and an empty data folder that belongs to the
# user that it runs as. It has no shell and no package manager.
#
# The same binaries and libraries make the same bytes: entries are sorted, modes
# do not depend on the folder of PATH, and every time is SOURCE_DATE_EPOCH, or
# that of the last commit.
set -euo pipefail
# Else a failure inside $(…) would pass as an empty answer.
shopt -s inherit_errexit
export LC_ALL=C
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Outside the ranges of people, of services and of systemd's dynamic users.
user=65532
data=/var/lib/orlop
port=5000

die() { echo "image.sh: $*" >&2; exit 1; }

# --- arguments --------------------------------------------------------------

bin='' output=''
while (($#)); do
    case $1 in
        --bin) bin=${2:?--bin needs a folder} ;;
        --output) output=${2:?--output needs a path} ;;
        *) die "unknown argument '$1'; usage: packaging/image.sh --bin DIR --output PATH" ;;
    esac
    shift 2
done
[[ $bin && $output ]] || die "usage: packaging/image.sh --bin DIR --output PATH"
for name in orlop orlop-fsck; do
    [[ -x $bin/$name ]] || die "$bin/$name is not there; run: ./x build"
done

case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) die "no image can be made for $(uname -m)" ;;
esac

version=$("$bin/orlop" version)
version=${version#orlop }
[[ $version =~ ^[0-9A-Za-z][0-9A-Za-z.-]*$ ]] || die "'$version' is not a version that can be a tag"

# --- time and revision ------------------------------------------------------

revision=$(git -C "$root" rev-parse --verify HEAD 2>/dev/null) || revision=''
if [[ $revision ]] && ! git -C "$root" diff --quiet HEAD -- 2>/dev/null; then
    revision+=-dirty
fi
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
[[ $epoch =~ ^[0-9]+$ ]] || die "SOURCE_DATE_EPOCH is '$epoch', not a number of seconds"
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$(dirname "$output")/.image-XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# A tar of what is in folder $1, always the same for the same content. Modes are
# set, since a setgid bit or a default ACL of the output's folder is inherited.
archive() {
    local folder=$1
    shift
    (cd "$folder" && tar --create --format=ustar --sort=name --mtime="@$epoch" \
        --owner=0 --group=0 --numeric-owner --mode=a-s,u=rwX,go=rX "$@" -- *)
}

# --- the root file system ---------------------------------------------------

# Whether program $1 is a static one, by what ldd said about it, $2. ldd says the
# same of a script and of another machine's program.
is_static() {
    [[ $2 == *[Nn]"ot a "*dynamic* && $(head -c 4 "$1" | tr -d '\0') == $'\x7fELF' ]] &&
        "$1" --help >/dev/null 2>&1
}

# The shared libraries and the loader of programs, as paths.
libraries() {
    local program lines
    for program in "$@"; do
        if ! lines=$(ldd "$program" 2>&1); then
            is_static "$program" "$lines" || die "ldd cannot name the libraries of $program: $lines"
            continue
        fi
        [[ $lines != *"not found"* ]] || die "a library of $program is missing: $lines"
        sed -nE 's|^[[:space:]]*([^[:space:]]+ => )?(/[^[:space:]]+) \(0x[0-9a-f]+\)$|\2|p' <<<"$lines"
    done | sort -u
}

# The licence of the package that brought file $1, where dpkg knows it.
licence() {
    local package
    command -v dpkg-query >/dev/null || return 0
    # The package may know the file by its path before or after links.
    package=$({ dpkg-query --search "$1" || dpkg-query --search "$(readlink -f "$1")"; } 2>/dev/null | sed -n '1s/:.*//p') || return 0
    [[ $package && -r /usr/share/doc/$package/copyright ]] || return 0
    install -D -m 644 "/usr/share/doc/$package/copyright" "$tree/usr/share/doc/$package/copyright"
}

tree=$work/tree
mkdir "$tree"
install -D -m 755 -t "$tree/usr/bin" "$bin/orlop" "$bin/orlop-fsck"
found=$(libraries "$bin/orlop" "$bin/orlop-fsck")
while read -r library; do
    # Static programs alone have none.
    [[ $library ]] || continue
    install -D -m 755 "$(readlink -f "$library")" "$tree$library"
    licence "$library"
done <<<"$found"
install -D -m 644 "$root/LICENSE" "$tree/usr/share/doc/orlop/copyright"

mkdir "$tree/etc"
printf '%s\n' 'root:x:0:0:root:/:/sbin/nologin' \
    "orlop:x:$user:$user:Orlop:$data:/sbin/nologin" >"$tree/etc/passwd"
printf '%s\n' 'root:x:0:' "orlop:x:$user:" >"$tree/etc/group"
echo 'hosts: files dns' >"$tree/etc/nsswitch.conf"

# A volume that is mounted here for the first time takes owner and mode of it.
mkdir -p "$tree$data"

archive "$tree" --exclude="${data#/}" >"$work/layer"
tar --append --file="$work/layer" --directory="$tree" --format=ustar --mtime="@$epoch" \
    --owner="$user" --group="$user" --numeric-owner --mode=a-s,u=rwx,go= "${data#/}"

# --- the image --------------------------------------------------------------

layout=$work/layout
mkdir -p "$layout/blobs/sha256"

digest_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# Moves file $1 among the blobs and prints its digest, without the algorithm.
keep() {
    local digest
    digest=$(digest_of "$1")
    mv "$1" "$layout/blobs/sha256/$digest"
    echo "$digest"
}

size_of() { stat --format=%s "$layout/blobs/sha256/$1"; }


# What the image says about itself, as members of a JSON object.
labels() {
    local name=org.opencontainers.image
    [[ -z $revision ]] || printf '"%s": "%s", ' "$name.revision" "$revision"
    printf '"%s": "%s", ' "$name.title" orlop "$name.description" "A private container registry" \
        "$name.version" "$version" "$name.created" "$created"
    printf '"%s": "%s"' "$name.licenses" Apache-2.0
}

diff_id=$(digest_of "$work/layer")
gzip --no-name "$work/layer"
layer=$(keep "$work/layer.gz")
layer_size=$(size_of "$layer")

# --insecure-anonymous is not in here, and has no variable: whoever opens the
# registry to everyone says so on the line that starts it.
cat >"$work/config" <<END
{
  "created": "$created",
  "architecture": "$architecture",
  "os": "linux",
  "config": {
    "User": "$user:$user",
    "ExposedPorts": { "$port/tcp": {} },
    "Env": [
      "PATH=/usr/bin",
      "ORLOP_DATA=$data",
      "ORLOP_LISTEN=0.0.0.0:$port"
    ],
    "Entrypoint": ["orlop"],
    "Cmd": ["serve"],
    "Volumes": { "$data": {} },
    "WorkingDir": "$data",
    "StopSignal": "SIGTERM",
    "Labels": { $(labels) }
  },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$diff_id"] },
  "history": [{ "created": "$created", "created_by": "packaging/image.sh" }]
}
END
config=$(keep "$work/config")
config_size=$(size_of "$config")

cat >"$work/manifest" <<END
{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:$config",
    "size": $config_size
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:$layer",
      "size": $layer_size
    }
  ],
  "annotations": { $(labels) }
}
END
manifest=$(keep "$work/manifest")
manifest_size=$(size_of "$manifest")

echo '{"imageLayoutVersion": "1.0.0"}' >"$layout/oci-layout"
cat >"$layout/index.json" <<END
{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [
    {
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "sha256:$manifest",
      "size": $manifest_size,
      "platform": { "architecture": "$architecture", "os": "linux" },
      "annotations": {
        "io.containerd.image.name": "docker.io/library/orlop:$version",
        "org.opencontainers.image.ref.name": "$version"
      }
    }
  ]
}
END
# What docker load reads where it knows no OCI layout.
cat >"$layout/manifest.json" <<END
[
  {
    "Config": "blobs/sha256/$config",
    "RepoTags": ["orlop:$version"],
    "Layers": ["blobs/sha256/$layer"]
  }
]
END

# --- the output -------------------------------------------------------------

if [[ $output == *.tar ]]; then
    archive "$layout" >"$work/image.tar"
    mv -f "$work/image.tar" "$output"
else
    [[ ! -e $output || -e $output/oci-layout ]] ||
        die "$output is there and is no image layout; name another folder"
    rm -rf "$output"
    mv "$layout" "$output"
fi
echo "sha256:$manifest"
