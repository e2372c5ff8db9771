#!/usr/bin/env bash
# Builds RocksDB's C++ library once, into a cache outside target/, and prints
# the folder that holds librocksdb.a. `./x` calls this before every cargo run,
# so the path taken when the library is there must stay short: no cargo, no
# network, one digest over a few lines of text.
#
#   engine/index/rocksdb.sh          build if it is missing, print the folder
#   engine/index/rocksdb.sh --key    print the folder, build nothing
#
# The sources are those of the crate librocksdb-sys, at the version Cargo.lock
# names. Defines and flags follow that crate's build.rs. Sources are compiled
# 29 to a unit, which costs a quarter of the CPU time of one by one. A unit
# that does not compile is halved until it does: names in anonymous namespaces
# may clash, and another compiler may see clashes that this one does not.
#
# Variables: ORLOP_CACHE (where the cache is), ORLOP_JOBS (compilers at once),
# CXX (the compiler, default c++).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cxx=${CXX:-c++}
sources_per_unit=29
memory_per_job_mib=1500

flags=(
    -std=c++20 -O2 -w -fPIC -ffunction-sections -fdata-sections
    -include cstdint
    -DNDEBUG -DLZ4=1 -DZSTD=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
    -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
    -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
    -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
)
# CRC-32C in hardware: SSE4.2 is in every x86-64 server since 2010.
case $(uname -m) in
    x86_64) flags+=(-march=x86-64-v2) ;;
    aarch64) flags+=(-march=armv8-a+crc+crypto) ;;
esac

die() {
    echo "rocksdb.sh: $*" >&2
    exit 1
}

# The version of one package in Cargo.lock.
locked_version() {
    awk -v want="name = \"$1\"" '
        found { gsub(/version = |"/, ""); print; exit }
        $0 == want { found = 1 }' "$root/Cargo.lock"
}

# What decides the library's bytes: sources, headers, compiler, flags.
cache_folder() {
    local compiler key
    compiler=$("$cxx" --version 2>/dev/null) || die "no C++ compiler '$cxx'; apt-get install g++, or set CXX"
    key=$(printf '%s\n' "$(locked_version librocksdb-sys)" "$(locked_version lz4-sys)" \
        "$(locked_version zstd-sys)" "${compiler%%$'\n'*}" "$sources_per_unit" "${flags[*]}" |
        sha256sum)
    echo "${ORLOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/orlop}/rocksdb-${key:0:16}"
}

# The folder of a dependency's sources, downloaded if need be. cargo is asked
# for it, so that vendored dependencies and other registries work too.
crate_folder() {
    local manifest
    manifest=$(grep -oE "\"manifest_path\":\"[^\"]*/$1[^/\"]*/Cargo.toml\"" <<<"$metadata" | head -n 1)
    [[ -n $manifest ]] || die "cargo metadata names no package $1"
    manifest=${manifest#*:\"}
    echo "${manifest%/Cargo.toml\"}"
}

# As many compilers as there are processors and memory for.
job_count() {
    local jobs memory
    jobs=$(nproc)
    memory=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    ((jobs * memory_per_job_mib <= memory)) || jobs=$((memory / memory_per_job_mib))
    ((jobs >= 1)) || jobs=1
    echo "${ORLOP_JOBS:-$jobs}"
}

# Compiles the sources listed in file $1 to $1.o, or to objects of its halves.
compile_unit() {
    local unit=$1 count
    sed 's|.*|#include "&"|' "$unit" >"$unit.cc"
    if "$cxx" "${flags[@]}" "${includes[@]}" -c "$unit.cc" -o "$unit.o" 2>"$unit.log"; then
        return 0
    fi
    rm -f "$unit.o"
    count=$(wc -l <"$unit")
    if ((count == 1)); then
        cat "$unit.log" >&2
        return 1
    fi
    split -l $(((count + 1) / 2)) -a 1 -d "$unit" "$unit-"
    compile_unit "$unit-0" && compile_unit "$unit-1"
}

# Compiles all units below $1, a few at once, and makes the archive.
compile_all() {
    local work=$1 jobs running=0 finished=0 started=$SECONDS unit units
    cp "$rocksdb/build_version.cc" "$work/build_version.cc"
    { grep -v '^util/build_version.cc$' "$rocksdb/rocksdb_lib_sources.txt" | sed '/^[[:space:]]*$/d'
      echo "$work/build_version.cc"; } >"$work/sources"
    split -l "$sources_per_unit" -a 3 -d "$work/sources" "$work/unit"
    units=("$work"/unit???)
    jobs=$(job_count)
    echo "building RocksDB once, ${#units[@]} units, $jobs at a time; a few minutes" >&2
    for unit in "${units[@]}"; do
        if ((running == jobs)); then
            wait -n || die "RocksDB does not compile, see above"
            running=$((running - 1)) finished=$((finished + 1))
            echo "rocksdb $finished/${#units[@]} ($((SECONDS - started)) s)" >&2
        fi
        compile_unit "$unit" &
        running=$((running + 1))
    done
    while ((running > 0)); do
        wait -n || die "RocksDB does not compile, see above"
        running=$((running - 1)) finished=$((finished + 1))
        echo "rocksdb $finished/${#units[@]} ($((SECONDS - started)) s)" >&2
    done
    mkdir "$work/out"
    ar crs "$work/out/librocksdb.a" "$work"/unit*.o
}

# Builds the library beside its place in the cache and moves it there whole.
build() {
    local folder=$1 parent work
    parent=$(dirname "$folder")
    mkdir -p "$parent"
    exec 9>"$parent/rocksdb.lock"
    if ! flock -n 9; then
        echo "waiting for another build of RocksDB ($parent/rocksdb.lock)" >&2
        flock 9
    fi
    [[ ! -e $folder/librocksdb.a ]] || return 0
    metadata=$(cargo metadata --locked --format-version 1 --manifest-path "$root/Cargo.toml") ||
        die "cargo metadata failed: the crates' sources are needed once, from the network or vendored"
    rocksdb=$(crate_folder librocksdb-sys)
    includes=(-I"$rocksdb/rocksdb/include" -I"$rocksdb/rocksdb" -I"$rocksdb"
        -I"$(crate_folder lz4-sys)/liblz4/lib" -I"$(crate_folder zstd-sys)/zstd/lib")
    work=$(mktemp -d "$parent/rocksdb-build.XXXXXX")
    # shellcheck disable=SC2064  # the folder of now, not of later
    trap "kill \$(jobs -p) 2>/dev/null || true; rm -rf '$work'" EXIT
    compile_all "$work"
    mv -T "$work/out" "$folder"
}

folder=$(cache_folder)
if [[ ${1:-} != --key && ! -e $folder/librocksdb.a ]]; then
    build "$folder"
fi
echo "$folder"
