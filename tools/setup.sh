#!/usr/bin/env bash
# Brings what the build needs and the machine lacks. Quick when there is nothing to do.
#
#   tools/setup.sh packages   the distribution's packages (tools/packages.txt), with apt-get
#   tools/setup.sh torch      LibTorch: a PyTorch wheel in the environment $VENV; $VENV/torch leads to its folder
#   tools/setup.sh preprocess OpenVINO and the pose networks, out of two wheels, in $VENV/openvino and $VENV/mediapipe.
#                             Where they cannot be had, the build goes on without `zoetrope preprocess`.
#   tools/setup.sh checks     the Python packages of the tests (tests/requirements.txt) in $VENV
#   tools/setup.sh clip       a clip of a dancer out of a wheel, $VENV/clip/dance.webp: what `make demo-animate` begins with
#
# Variables: PYTHON (python3), VENV (.venv), TORCH_VERSION (2.13.0), TORCH_INDEX (pip's own configuration), CXX (g++).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH_VERSION=${TORCH_VERSION:-2.13.0}
TORCH_INDEX=${TORCH_INDEX:-}

stop() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# at_least <version> <minimum>
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }

make_venv() {
    has_venv || stop "$PYTHON cannot make virtual environments: apt-get install python3-venv"
    [[ -x $VENV/bin/pip ]] || "$PYTHON" -m venv --clear "$VENV"
}

install_packages() {
    local command="apt-get install -y --no-install-recommends $*"
    if [[ $(id -u) == 0 ]]; then
        echo "setup: $command"
        apt-get update -q && DEBIAN_FRONTEND=noninteractive $command && return
    elif command -v sudo >/dev/null; then
        echo "setup: sudo $command"
        sudo apt-get update -q && sudo env DEBIAN_FRONTEND=noninteractive $command && return
    fi
    stop "these packages are missing and could not be installed from here; as root, run" \
        "    apt-get update && $command"
}

packages() {
    command -v dpkg-query >/dev/null ||
        stop "this is neither Debian nor Ubuntu (no dpkg): install the counterparts of tools/packages.txt" \
            "and build with CMake directly, as docs/setup.md says."
    local package command minimum missing=() names=()
    local -A least=()
    while read -r package command minimum _; do
        [[ $package == \#* || -z $package ]] && continue
        [[ $command != - ]] && command -v "$command" >/dev/null && continue
        [[ $package == python3-venv ]] && has_venv && continue
        names+=("$package")
        least[$package]=$minimum
    done <tools/packages.txt

    local -A found=()
    local version status
    while read -r package status version; do
        [[ $status == installed ]] && found[$package]=$version
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status} ${Version}\n' "${names[@]}" 2>/dev/null)
    for package in "${names[@]}"; do
        version=${found[$package]:-}
        if [[ -z $version ]]; then
            missing+=("$package")
        elif ! dpkg --compare-versions "${version#*:}" ge "${least[$package]}"; then
            stop "$package is $version here, ${least[$package]} or newer is needed: Debian 12 and Ubuntu 24.04 have it."
        fi
    done
    [[ ${#missing[@]} == 0 ]] || install_packages "${missing[@]}"
    check_tools
}

# The tools that are found first may be others than the packages' own.
check_tools() {
    local compiler=${CXX:-g++} version
    version=$("$compiler" -dumpfullversion 2>/dev/null || echo 12)  # clang answers nothing; CMake judges it
    at_least "$version" 12 ||
        stop "$compiler is version $version, 12 or newer is needed: apt-get install g++-12, then CXX=g++-12 make"
    version=$(cmake --version | sed -n 's/^cmake version //p')
    at_least "$version" 3.25 ||
        stop "cmake is version $version, 3.25 or newer is needed: apt-get install cmake, or pip install cmake"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        stop "PYTHON=$PYTHON is not there or older than 3.10: apt-get install python3, or PYTHON=<another> make"
}

torch() {
    at_least "$TORCH_VERSION" 2.13 || stop "TORCH_VERSION is $TORCH_VERSION: accepted are 2.13.0 and newer."
    local stamp="$VENV/torch.stamp" wanted="$PYTHON $TORCH_VERSION $TORCH_INDEX"
    [[ -e $VENV/torch/lib/libtorch_cpu.so && $(cat "$stamp" 2>/dev/null) == "$wanted" ]] && return

    make_venv
    rm -f "$stamp"
    local pip=("$VENV/bin/pip" --disable-pip-version-check install --quiet)
    [[ -z $TORCH_INDEX ]] || pip+=(--index-url "$TORCH_INDEX")
    echo "setup: installing torch $TORCH_VERSION in $VENV"
    # Only the libraries in the wheel are used; the Python packages it names are not needed.
    "${pip[@]}" --no-deps --force-reinstall "torch==$TORCH_VERSION" ||
        stop "pip found or fetched no torch $TORCH_VERSION for $("$PYTHON" --version)." \
            "TORCH_INDEX=<url> names another package index, PYTHON=<path> another Python," \
            "TORCH_DIR=<torch folder> an installation that exists."

    local site
    site=$(echo "$VENV"/lib/python3.*/site-packages)
    if [[ -e $site/torch/lib/libtorch_cuda.so ]]; then
        local wheels
        mapfile -t wheels < <(sed -nE 's/^Requires-Dist: ((nvidia-|cuda-toolkit).*)/\1/p' "$site"/torch-*.dist-info/METADATA)
        echo "setup: installing the CUDA libraries that this torch was built for"
        "${pip[@]}" --no-warn-conflicts "${wheels[@]}" || stop "pip could not install: ${wheels[*]}"
    fi
    ln -sfn "${site#"$VENV"/}/torch" "$VENV/torch"
    echo "$wanted" >"$stamp"
}

# unpack_wheel <name==version> <sha256> <target folder> <pattern>...: those members of the wheel, fetched by pip.
unpack_wheel() {
    local wheel=$1 sum=$2 target=$3 download="$VENV/download"
    shift 3
    [[ -x $VENV/bin/pip ]] || "$PYTHON" -m venv --clear "$VENV" || return
    rm -rf "$download" "$target"
    echo "setup: fetching $wheel"
    # The Python tag only picks one wheel of several: what is taken from it holds no Python.
    "$VENV/bin/pip" --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 --dest "$download" "$wheel" || return
    "$PYTHON" tools/unpack_wheel.py "$sum" "$download"/*.whl "$target" "$@" || return
    rm -rf "$download"
}

preprocess() {
    local openvino=openvino==2026.4.1 mediapipe=mediapipe==0.10.21 stamp="$VENV/preprocess.stamp"
    [[ $(uname -m) == x86_64 ]] || { echo "setup: no OpenVINO for $(uname -m): zoetrope preprocess is left out"; return; }
    [[ -e $VENV/openvino/libs && -e $VENV/mediapipe && $(cat "$stamp" 2>/dev/null) == "$openvino $mediapipe" ]] && return
    rm -f "$stamp"
    # The CPU plugin and the readers of ONNX, TFLite and OpenVINO's own files; the wheel's others are left out.
    if has_venv &&
        unpack_wheel "$openvino" 2d22b1da03f7caf74df30e9f6417d0ab2f637e4a38e08e1dcd294d2c37407aaf \
            "$VENV/openvino" 'openvino/include/*' 'openvino/libs/libopenvino.so*' 'openvino/libs/*intel_cpu_plugin*' \
            'openvino/libs/*onnx_frontend*' 'openvino/libs/*lite_frontend*' 'openvino/libs/*ir_frontend*' \
            'openvino/libs/libtbb*' 'openvino/libs/libhwloc*' '*.dist-info/licenses/LICENSE' '*third-party-programs.txt' &&
        unpack_wheel "$mediapipe" 05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3 \
            "$VENV/mediapipe" '*/pose_detection.tflite' '*/pose_landmark_full.tflite' '*/hand_recrop.tflite' \
            '*/hand_landmark_full.tflite' '*/face_detection_short_range.tflite' '*/face_landmark.tflite' '*.dist-info/LICENSE'; then
        echo "$openvino $mediapipe" >"$stamp"
    else
        echo "setup: OpenVINO or the pose networks could not be fetched: zoetrope preprocess is left out of the build"
        rm -rf "$VENV/openvino" "$VENV/mediapipe" "$VENV/download"
    fi
}

checks() {
    local stamp="$VENV/checks.stamp"
    cmp -s tests/requirements.txt "$stamp" && return
    make_venv
    echo "setup: installing the tests' Python packages in $VENV"
    "$VENV/bin/pip" --disable-pip-version-check install --quiet -r tests/requirements.txt ||
        stop "pip could not install tests/requirements.txt for $("$VENV/bin/python" --version); Python 3.11 or newer has them."
    cp tests/requirements.txt "$stamp"
}

# A preview of ComfyUI's templates (MIT; 104 MB are fetched for the 0.9 MB that are kept).
clip() {
    local wheel=comfyui-workflow-templates-media-video==0.3.101 name=video_wan2_2_14B_fun_control-1.webp
    [[ -e $VENV/clip/dance.webp ]] && return
    has_venv && unpack_wheel "$wheel" 6270fd61c8c3931b6f0031abac7d4c90ced624de6c7918bff85b89e6c3d7493c \
        "$VENV/clip" "*/$name" '*.dist-info/METADATA' ||
        stop "the clip in $wheel could not be fetched: DRIVING=<a clip of your own> make demo-animate needs none"
    mv "$VENV/clip/templates/$name" "$VENV/clip/dance.webp" && rmdir "$VENV/clip/templates"
}

case ${1:-} in
    packages | torch | preprocess | checks | clip) "$1" ;;
    *) stop "usage: tools/setup.sh packages|torch|preprocess|checks|clip" ;;
esac
