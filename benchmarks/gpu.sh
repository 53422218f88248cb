#!/usr/bin/env bash
# Everything that is measured on a GPU, in one call:
#
#     bash benchmarks/gpu.sh FOLDER [--minutes=25] [--only=checks,train_step,training]
#
# Writes into FOLDER; what it already holds is measured again only if something failed:
#   checks.json            the recurrent ops against float64 on the CPU; the card's rate
#                          of bfloat16 matrix products
#   train_step_*.json, .md this project and PyTorch (eager, torch.compile of the cell and
#                          of the network, channels last, autocast), where it is there
#   summary.txt            the share of that rate that training steps reach
#   convlstm_s/            OpenSTL's ConvLSTM-S, trained on Moving MNIST for so many
#                          minutes (evaluation.json holds its MSE beside the baselines)
#
# The Python that is called (PYTHON, python3 if not set) is used as it is if JAX sees a
# GPU there and what is asked for can run; else a virtual environment on top of it is
# made in FOLDER, with jax[JAX_EXTRA] (cuda13 if not set) if JAX saw no GPU. Works with
# jax 0.10 and 0.11, Python 3.11 to 3.13. --dry-run does it all in small on a CPU.
# MNIST's digits: set CONVLSTM_MNIST_DIR.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: benchmarks/gpu.sh FOLDER [--minutes=N] [--only=checks,train_step," \
        "training] [--dry-run]" >&2
    exit 2
}
out="" minutes=25 only=checks,train_step,training dry_run=""
for argument in "$@"; do
    case "$argument" in
        --minutes=*) minutes=${argument#*=} ;;
        --only=*) only=${argument#*=} ;;
        --dry-run) dry_run=yes ;;
        -*) usage ;;
        *) [ -z "$out" ] || usage; out=$argument ;;
    esac
done
[ -n "$out" ] || usage
for name in ${only//,/ }; do
    case "$name" in checks | train_step | training) ;; *) usage ;; esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out/failed"
wants() { [[ ",$only," == *",$1,"* ]]; }
say() { printf '\n=== %s (%d s)\n' "$*" "$SECONDS"; }

python=${PYTHON:-python3}
platform=gpu
unset JAX_PLATFORMS
[ -z "$dry_run" ] || { platform=cpu; export JAX_PLATFORMS=cpu; }
sees_it() {
    "$python" -c 'import sys, jax; sys.exit(jax.default_backend() != sys.argv[1])' \
        "$platform" 2>/dev/null
}
needed=(flax jaxtyping numpy)
if wants training; then
    needed+=(absl av grain h5py matplotlib ml_collections optax orbax.checkpoint scipy
        sklearn tensorboardX tensorflow_datasets tqdm)
fi
has_all() {
    "$python" -c 'import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]' \
        "${needed[@]}" 2>/dev/null
}
if ! sees_it || ! has_all; then
    [ -z "$dry_run" ] || { echo "the requirements are not installed" >&2; exit 1; }
    say "new virtual environment"
    packages=(-r requirements.txt)
    sees_it || packages+=("jax[${JAX_EXTRA:-cuda13}]<0.12")
    "$python" -m venv "$out/venv"
    # With what the Python that was called has, also if that is an environment itself.
    "$python" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
        >"$("$out/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/called.pth"
    python=$out/venv/bin/python
    "$python" -m pip install -q "${packages[@]}"
    sees_it || { echo "JAX sees no GPU" >&2; exit 1; }
    has_all || { echo "the requirements cannot be imported" >&2; exit 1; }
fi
"$python" -c 'import jax; print(jax.__version__, jax.devices())'
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv
fi

if wants checks && [ ! -e "$out/checks.done" ]; then
    say "ops against float64, rate of matrix products"
    size=8192
    [ -z "$dry_run" ] || size=128
    # A difference is a result too: the rest runs, the exit code remembers.
    if "$python" benchmarks/gpu_checks.py --size="$size" --json="$out/checks.json"
    then touch "$out/checks.done"
    else touch "$out/failed"
    fi
fi

# measure NAME OPTIONS...: one run of train_step.py
measure() {
    local name=$1
    shift
    [ ! -e "$out/train_step_$name.done" ] || return 0
    say "train_step $name"
    local device=(--device=gpu)
    [ -z "$dry_run" ] || device=(--device=cpu --tiny --rounds=1)
    if "$python" benchmarks/train_step.py "$@" "${device[@]}" \
        --json="$out/train_step_$name.json" | tee "$out/train_step_$name.md"
    then touch "$out/train_step_$name.done"
    else touch "$out/failed"
    fi
}
if wants train_step; then
    peers=pytorch_channels_last,pytorch_compile,pytorch_compile_model
    workloads="layer_16x16 layer_64x64 layer_40x40 encoder_forecaster"
    batches="16 64 128"
    if [ -n "$dry_run" ]; then
        peers=pytorch_channels_last workloads="layer_16x16 encoder_forecaster" batches=2
    fi
    for batch in $batches; do
        measure "bfloat16_convlstm_s_$batch" --dtype=bfloat16 --batch-size="$batch" \
            --workloads=openstl_convlstm_s --contenders="$peers"
    done
    for workload in $workloads; do
        measure "bfloat16_$workload" --dtype=bfloat16 --batch-size=32 \
            --workloads="$workload" --contenders="$peers,flax_rnn"
    done
    for workload in $workloads openstl_convlstm_s; do
        measure "float32_$workload" --dtype=float32 --batch-size=32 \
            --workloads="$workload" --contenders="$peers"
    done
    "$python" - "$out" <<'PYTHON' | tee "$out/summary.txt"
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
rate = None
if (folder / "checks.json").exists():
    rate = json.loads((folder / "checks.json").read_text())["matrix_product_tflop_s"]
for file in sorted(folder.glob("train_step_*.json")):
    document = json.loads(file.read_text())
    for row in document["rows"]:
        share = f", {row['train_tflop_s'] / rate:.1%} of the matrix product" if rate else ""
        print(
            f"{document['settings']['dtype']} {row['workload']} B{row['batch_size']} "
            f"{row['contender']}: {row['train_ms']:.2f} ms, ratio {row['ratio']:.2f}, "
            f"{row['train_tflop_s']:.3g} TFLOP/s{share}"
        )
PYTHON
fi

if wants training; then
    say "ConvLSTM-S on Moving MNIST, $minutes minutes"
    # As many steps as fit, so that the learning rate's one cycle ends with the time.
    steps=$("$python" - "$out" "$minutes" <<'PYTHON'
import json
import pathlib
import sys

file = pathlib.Path(sys.argv[1]) / "train_step_bfloat16_convlstm_s_16.json"
milliseconds = 25.0
if file.exists():
    milliseconds = json.loads(file.read_text())["rows"][0]["train_ms"]
# Data, optimizer, validations and the final test take their part.
print(max(100, int(0.75 * float(sys.argv[2]) * 60e3 / milliseconds / 100) * 100))
PYTHON
)
    preset=small
    settings=(--config.model.dtype=bfloat16)
    if [ -n "$dry_run" ]; then
        preset=quick steps=4
        settings=(--config.train.num_validation_sequences=8 --config.eval.num_sequences=8
            --config.train.batch_size=8 --config.eval.batch_size=8
            --config.eval.num_pictures=1 --config.model.features=4,5)
    fi
    every=$((steps / 10 > 0 ? steps / 10 : 1))
    # SIGTERM saves; what was learned until then is evaluated.
    timeout --signal=TERM --kill-after=120 "${minutes}m" \
        "$python" main.py --config="configs/moving_mnist_recurrent.py:$preset" \
        --workdir="$out/convlstm_s" "${settings[@]}" \
        --config.train.num_steps="$steps" \
        --config.task.sampling_end_step=$((steps * 2 / 5 > 0 ? steps * 2 / 5 : 1)) \
        --config.train.eval_every_steps="$every" \
        --config.train.checkpoint_every_steps="$every" || true
    if [ ! -s "$out/convlstm_s/evaluation.json" ]; then
        "$python" main.py --mode=evaluate --workdir="$out/convlstm_s"
    fi
    "$python" - "$out/convlstm_s/evaluation.json" <<'PYTHON' | tee -a "$out/summary.txt"
import json
import sys

results = json.load(open(sys.argv[1]))
for name, figures in results.items():
    if isinstance(figures, dict) and isinstance(figures.get("mse"), float):
        print(f"ConvLSTM-S, {name}: MSE {figures['mse']:.2f} per frame")
PYTHON
fi
say "done: $out"
[ ! -e "$out/failed" ] || { echo "something failed or differed" >&2; exit 1; }
