#!/usr/bin/env bash
# All that a GPU owner should run: tests that need CUDA, benchmarks, the paper's recipes from end to end. No network.
#
#   bash benchmarks/gpu.sh                      planned for four minutes on an H100; results as JSON in gpu-results/
#   bash benchmarks/gpu.sh --device cpu         at toy size, to see that it runs
#   OUTPUT=folder SECONDS_EACH=30 MIMICRY=folder PYTHON=python3 ONLY="tests wgan_step" bash benchmarks/gpu.sh
#
# MIMICRY is the folder of torch-mimicry (benchmarks/wgan_step.py says how to get it); without it there is no peer.
# ONLY names the parts to run: tests wgan_step classifier_step coded_pass input_pipeline end_to_end.
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda
[ "${1:-}" = "--device" ] && device=$2
output=${OUTPUT:-gpu-results}
python=${PYTHON:-python3}
mkdir -p "$output"
size=(--device "$device" --repeats 2)
steps=()
if [ "$device" = cpu ]; then
    size+=(--toy)
    steps=(-- --model.width=4 --training.batch_size=4 --training.generator_batch_size=4 --training.n_critic=1 --training.log_every=1)
fi
peer=()
[ -n "${MIMICRY:-}" ] && peer=(--mimicry "$MIMICRY")
failed=0

run() {  # a name, a command
    local name=$1 begin=$SECONDS
    shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
    if "$@" >"$output/$name.txt" 2>&1; then result=done; else result=FAILED failed=1; fi
    echo "$name: $result after $((SECONDS - begin)) s ($output/$name.txt)"
}

run tests "$python" -m pytest -q -n 8 -p no:cacheprovider --junitxml="$output/tests.xml" tests/test_cuda.py \
    tests/test_randomness.py tests/core/test_product.py tests/training/test_state_in_graphs.py
run wgan_step "$python" benchmarks/wgan_step.py "${size[@]}" ${peer[@]+"${peer[@]}"} --json "$output/wgan_step.json"
run classifier_step "$python" -m benchmarks.classifier_step "${size[@]}" --precisions bf16 --json "$output/classifier_step.json"
run coded_pass "$python" -m benchmarks.coded_pass "${size[@]}" --every 4 --json "$output/coded_pass.json"
run input_pipeline "$python" -m benchmarks.input_pipeline "${size[@]}" --json "$output/input_pipeline.json"
seconds=${SECONDS_EACH:-30}
[ "$device" = cpu ] && seconds=${SECONDS_EACH:-5}
run end_to_end "$python" benchmarks/wgan_step.py --device "$device" --end-to-end "$seconds" \
    --json "$output/end_to_end.json" ${steps[@]+"${steps[@]}"}
"$python" -m benchmarks.gpu_table "$output"
echo "all of it took $SECONDS s"
exit $failed
